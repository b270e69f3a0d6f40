// images.open: the guest's bytes of an image, read and written as a program likes.
import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { eventually } from '../../support/boxes.js'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection, settled } from '../../support/producer.js'
import { holdInQemu, qemuImg, qemuIo } from '../../support/qemu.js'

const MIB = 2 ** 20

test.each(['raw', 'qcow2'] as const)(
  '%s: any range is read and written, and qemu-img reads the same',
  async (format) => {
    const folder = makeFolder()
    const { images } = openRuntime()
    await images.create(folder('disk'), { format, size: '8M' })
    const image = await images.open(folder('disk'))
    expect(image).toMatchObject({ path: folder('disk'), format, size: 8 * MIB, readonly: false })
    const model = Buffer.alloc(8 * MIB)
    let seed = 7
    const random = (below: number) => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31
      return seed % below
    }
    for (let round = 0; round < 60; round++) {
      const at = random(8 * MIB)
      const length = Math.min(8 * MIB - at, round % 3 === 0 ? random(300_000) : random(3000))
      if (round % 5 === 4) {
        await image.zero(at, length)
        model.fill(0, at, at + length)
      } else {
        const data = Buffer.alloc(length, (round % 255) + 1)
        await image.write(at, data)
        data.copy(model, at)
      }
      expect((await image.read(at, length)).equals(model.subarray(at, at + length))).toBe(true)
    }
    // In the order in which they were asked for.
    await Promise.all([image.write(0, Buffer.from('first')), image.write(0, Buffer.from('second')), image.flush()])
    model.write('second')
    const whole: Buffer[] = []
    for await (const chunk of image.createReadStream()) whole.push(chunk)
    expect(Buffer.concat(whole).equals(model)).toBe(true)
    const part: Buffer[] = []
    for await (const chunk of image.createReadStream({ start: 3, end: 5 })) part.push(chunk)
    expect(Buffer.concat(part).toString()).toBe('ond')
    await image.close()
    await qemuImg('convert', '-f', format, '-O', 'raw', folder('disk'), folder('raw'))
    expect(readFileSync(folder('raw')).equals(model)).toBe(true)
    if (format === 'qcow2') await qemuImg('check', '-q', folder('disk'))
  },
)

test('an overlay shows its backing until it is written, and the backing is never written', async () => {
  const folder = makeFolder()
  const { images } = openRuntime()
  await images.create(folder('base'), { format: 'qcow2', size: '1M' })
  await qemuIo(folder('base'), ['write -P 7 0 128k'])
  const before = readFileSync(folder('base'))
  await images.create(folder('top'), { format: 'qcow2', backing: { path: folder('base'), format: 'qcow2' } })
  const image = await images.open(folder('top'))
  expect((await image.read(100, 10)).equals(Buffer.alloc(10, 7))).toBe(true)
  await image.write(100, Buffer.alloc(3, 1))
  await image.zero(105, 2)
  expect([...(await image.read(98, 12))]).toEqual([7, 7, 1, 1, 1, 7, 7, 0, 0, 7, 7, 7])
  await image.close()
  expect(readFileSync(folder('base')).equals(before)).toBe(true)
})

test('I39, I40: an open image is locked: to be read by others who read, to nobody who is not', async () => {
  const folder = makeFolder()
  const path = folder('a.qcow2')
  const { images } = openRuntime()
  await images.create(path, { format: 'qcow2', size: '1M' })
  const image = await images.open(path)
  for (const readonly of [true, false])
    expect(await rejection(images.open(path, { readonly }))).toMatchObject({ code: 'IMAGE_LOCKED', path })
  await expect(qemuIo(path, ['write 0 512'])).rejects.toThrow('lock')
  await image.close()
  const readers = [await images.open(path, { readonly: true }), await images.open(path, { readonly: true })]
  expect(await rejection(images.open(path))).toMatchObject({ code: 'IMAGE_LOCKED' })
  expect(await rejection((readers[0] as (typeof readers)[0]).write(0, Buffer.alloc(1)))).toMatchObject({
    code: 'INVALID_ARGUMENT',
  })
  await Promise.all(readers.map((each) => each.close()))
  const held = await holdInQemu(path)
  expect(await rejection(images.open(path))).toMatchObject({ code: 'IMAGE_LOCKED' })
  await held.release()
})

test('what is no image, no range or not open any more is refused, and says which', async () => {
  const folder = makeFolder()
  const path = folder('a.qcow2')
  const runtime = openRuntime()
  const { images } = runtime
  await images.create(path, { format: 'qcow2', size: '1M' })
  expect(await rejection(images.open(folder('gone')))).toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  const image = await images.open(path)
  expect(await rejection(image.read(MIB - 1, 2))).toMatchObject({ argument: 'length' })
  expect(await rejection(image.read(0, 2 ** 40))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  expect(await rejection(image.write(-1, Buffer.alloc(1)))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  expect(await rejection(image.write(0, 'text' as never))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  const reason = new Error('not now')
  expect(await rejection(image.flush({ signal: AbortSignal.abort(reason) }))).toBe(reason)
  expect(await rejection(images.open(path, { signal: AbortSignal.abort(reason) }))).toBe(reason)
  await image.close()
  await image.close()
  expect(await rejection(image.read(0, 1))).toMatchObject({ code: 'INVALID_ARGUMENT', path })
})

test('the runtime closes what is open: written, unlocked, and refused from then on', async () => {
  const path = makeFolder()('a.qcow2')
  const runtime = openRuntime()
  await runtime.images.create(path, { format: 'qcow2', size: '1M' })
  const image = await runtime.images.open(path)
  const written = image.write(0, Buffer.from('kept'))
  await runtime.close()
  await written
  expect(await rejection(image.read(0, 1))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  await qemuImg('convert', '-O', 'raw', path, `${path}.raw`)
  expect(readFileSync(`${path}.raw`, 'utf8').slice(0, 4)).toBe('kept')
})

test('an image that is forgotten, and one whose opening was aborted, keep no file and no lock', async () => {
  const path = makeFolder()('a.qcow2')
  const { images } = openRuntime()
  await images.create(path, { format: 'qcow2', size: '1M' })
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const isFree = async () => {
    await new Promise((resolve) => setImmediate(resolve))
    collect()
    return images.open(path).then(
      (image) => image.close().then(() => true),
      () => false,
    )
  }
  await (async () => {
    const forgotten = await images.open(path)
    await forgotten.write(0, Buffer.alloc(1))
  })()
  await eventually(isFree, (free) => free, 'the lock of a forgotten image to go')
  for (const delay of [0, 1]) {
    const abort = new AbortController()
    const opening = images.open(path, { signal: abort.signal })
    if (delay) await new Promise((resolve) => setImmediate(resolve))
    abort.abort(new Error('enough'))
    await opening.then(
      (image) => image.close(),
      () => {},
    )
  }
  await eventually(isFree, (free) => free, 'the lock of an aborted opening to go')
})

test('what is written is what the bytes were when write() was called', async () => {
  const path = makeFolder()('a.raw')
  const { images } = openRuntime()
  await images.create(path, { format: 'raw', size: '1M' })
  await using image = await images.open(path)
  const reused = new Uint8Array(4).fill(1)
  const first = image.write(0, reused)
  const second = image.write(4, reused)
  reused.fill(2)
  structuredClone(reused.buffer, { transfer: [reused.buffer] })
  await Promise.all([first, second])
  expect([...(await image.read(0, 8))]).toEqual([1, 1, 1, 1, 1, 1, 1, 1])
})

test('close() of the runtime leaves no image locked: what is open is closed, what is being opened is given up', async () => {
  const folder = makeFolder()
  const runtime = openRuntime()
  const { images } = runtime
  for (const name of ['a', 'b', 'c']) await images.create(folder(name), { format: 'qcow2', size: '64M' })
  const image = await images.open(folder('a'))
  const writes = Array.from({ length: 32 }, (_, i) => image.write(i * 2 ** 20, Buffer.alloc(2 ** 20, i)))
  const opening = settled(images.open(folder('b')))
  const closing = runtime.close()
  expect(await rejection(images.open(folder('c')))).toMatchObject({ code: 'RUNTIME_CLOSED' })
  await Promise.all(writes)
  await opening
  await closing
  const other = openRuntime()
  for (const name of ['a', 'b', 'c']) await (await other.images.open(folder(name))).close()
})

test.each(['qcow2', 'vmdk', 'vhdx'] as const)('%s: zeros over what was never written take no space', async (format) => {
  const path = makeFolder()('a')
  const { images } = openRuntime()
  await images.create(path, { format, size: '256M' })
  const image = await images.open(path)
  await image.write(100_000, Buffer.alloc(10, 1))
  await image.zero(0, 256 * MIB)
  expect((await image.read(99_999, 12)).every((byte) => byte === 0)).toBe(true)
  await image.close()
  expect((await images.info(path)).allocatedBytes).toBeLessThan(20 * MIB)
})
