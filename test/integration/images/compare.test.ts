// images.compare: qemu-img's verdicts, and its offsets.
import { copyFileSync, truncateSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { holdInQemu, program, qemuImg, qemuIo } from '../../support/qemu.js'
import { variedDisks } from '../../support/varied-disks.js'

/** Exit code 0 or 1, and the offset that it names. */
async function qemuCompare(a: string, b: string, ...more: string[]) {
  const { code, stdout, stderr } = await program('qemu-img', ['compare', ...more, a, b])
  if (code > 1) throw new Error(stderr)
  const offset = /offset (\d+)/i.exec(stdout)?.[1]
  return {
    identical: code === 0,
    sizeDiffers: stdout.includes('size mismatch'),
    ...(offset && { firstDifference: Number(offset) }),
  }
}

test.each(variedDisks)(
  '%s compares with its raw copy, and with one that was changed, as qemu-img says',
  async (_, make) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    const { path } = await make(folder)
    const copy = folder('copy.raw')
    await qemuImg('convert', '-O', 'raw', path, copy)
    expect(await images.compare(path, copy)).toEqual({ identical: true, sizeDiffers: false })
    for (const write of [
      'write -P 0x99 150K 1',
      'write -P 0x99 700K 512',
      'write -P 0x99 999K 700',
      'write -z 0 64K',
    ]) {
      const changed = folder('changed.raw')
      copyFileSync(copy, changed)
      await qemuIo(changed, [write], 'raw')
      const ours = await images.compare(path, changed, { formatB: 'raw' })
      expect(ours).toEqual(await qemuCompare(path, changed, '-F', 'raw'))
      expect(await images.compare(changed, path, { formatA: 'raw' })).toEqual(ours)
    }
  },
)

test('disks of different sizes are the same as long as the longer one ends in zeros, unless strict', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [short, long] = [folder('short.raw'), folder('long.qcow2')]
  writeFileSync(short, Buffer.alloc(100_000, 7))
  truncateSync(short, 2 ** 20)
  await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', short, long)
  await qemuImg('resize', '-q', long, '3M')
  expect(await images.compare(short, long)).toEqual({ identical: true, sizeDiffers: true })
  expect(await images.compare(short, long, { strict: true })).toEqual({ identical: false, sizeDiffers: true })
  expect(await qemuCompare(short, long, '-f', 'raw', '-s')).toMatchObject({ identical: false })
  await qemuIo(long, ['write -P 1 2M 1K'])
  const expected = { identical: false, sizeDiffers: true, firstDifference: 2 ** 21 }
  expect(await images.compare(short, long)).toEqual(expected)
  expect(await images.compare(long, short)).toEqual(expected)
  expect(await qemuCompare(short, long, '-f', 'raw')).toMatchObject({ identical: false, firstDifference: 2 ** 21 })
})

test('strict sees that one disk allocates what the other does not', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [a, b] = [folder('a.qcow2'), folder('b.qcow2')]
  for (const path of [a, b]) await images.create(path, { format: 'qcow2', size: '1M' })
  expect(await images.compare(a, b, { strict: true })).toEqual({ identical: true, sizeDiffers: false })
  await qemuIo(a, ['write -P 0 512K 64K'])
  expect(await images.compare(a, b)).toEqual({ identical: true, sizeDiffers: false })
  const strict = await images.compare(a, b, { strict: true })
  expect(strict).toEqual({
    identical: false,
    sizeDiffers: false,
    firstDifference: 512 * 1024,
    allocationDiffers: true,
  })
  // qemu-img names offset 0: there one disk is the same up to its end, and the other is not.
  expect(await qemuCompare(a, b, '-s')).toMatchObject({ identical: false })
  await qemuIo(b, ['write -P 3 64K 64K'])
  await qemuIo(a, ['write -P 4 64K 64K'])
  expect(await images.compare(a, b, { strict: true })).toMatchObject({ identical: false, firstDifference: 64 * 1024 })
})

test('an image is the same as itself, progress grows, and refusals have their codes', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const path = folder('disk.raw')
  writeFileSync(path, Buffer.alloc(2 ** 22, 9))
  const done: number[] = []
  expect(await images.compare(path, path, { onProgress: (progress) => done.push(progress.done) })).toMatchObject({
    identical: true,
  })
  expect(done).toEqual(done.toSorted((a, b) => a - b))
  expect(await rejection(images.compare(path, folder('gone')))).toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  expect(await rejection(images.compare(path, ''))).toMatchObject({ argument: 'b', op: 'images.compare' })
  expect(await rejection(images.compare(path, path, { strict: 1 } as never))).toMatchObject({ argument: 'strict' })
  const reason = new Error('not now')
  expect(await rejection(images.compare(path, path, { signal: AbortSignal.abort(reason) }))).toBe(reason)
  const held = folder('held.qcow2')
  await images.create(held, { format: 'qcow2', size: '1M' })
  const holder = await holdInQemu(held)
  expect(await rejection(images.compare(path, held))).toMatchObject({ code: 'IMAGE_LOCKED', path: held })
  await holder.release()
})
