// create, info and check through a Runtime, with qemu-img beside them as the oracle.
import { existsSync, readdirSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import type { ImageCreateOptions } from '../../../lib/index.js'
import { eventually } from '../../support/boxes.js'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection, settled } from '../../support/producer.js'
import { program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'

const table: ImageCreateOptions[] = [
  { format: 'raw', size: '1M' },
  { format: 'raw', size: 0 },
  { format: 'raw', size: '1M', preallocation: 'full' },
  { format: 'qcow2', size: '1G' },
  { format: 'qcow2', size: 512, clusterSize: 512 },
  { format: 'qcow2', size: '64M', clusterSize: '2M' },
  { format: 'qcow2', size: '10M', compat: '0.10' },
  { format: 'qcow2', size: '10M', refcountBits: 1 },
  { format: 'qcow2', size: '10M', refcountBits: 64, lazyRefcounts: true },
  { format: 'qcow2', size: '10M', preallocation: 'metadata' },
  { format: 'qcow2', size: '3M', preallocation: 'falloc' },
  { format: 'qcow2', size: '8T' },
]

test.each(table)('I6: %j is the image that qemu-img sees, and both checks find nothing', async (options) => {
  const { images } = openRuntime()
  const path = makeFolder()('image')
  const made = await images.create(path, options)
  const seen = await qemuInfo(path)
  expect(seen['virtual-size']).toBe(made.virtualBytes)
  expect(seen.format).toBe(made.format)
  expect(await images.info(path, { format: options.format })).toMatchObject({ virtualBytes: made.virtualBytes, path })
  if (options.format === 'raw') return
  expect(seen['cluster-size']).toBe(made.clusterBytes)
  const specific = (seen['format-specific'] as { data: Record<string, unknown> }).data
  for (const [key, value] of Object.entries(made.specific))
    if (key in specific) expect(value, key).toEqual(specific[key])
  expect((await program('qemu-img', ['check', path])).code).toBe(0)
  expect(await images.check(path)).toMatchObject({ ok: true, corruptions: 0, leaks: 0, path, problems: [] })
})

test('an unchecked backing need not be there yet, and shows through when it is; of qcow2 alone, and with a size', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [path, base] = [folder('early.qcow2'), folder('later.raw')]
  const backing = { path: 'later.raw', format: 'raw' as const, unchecked: true }
  const made = await images.create(path, { format: 'qcow2', size: '1M', backing })
  expect(made).toMatchObject({
    virtualBytes: 2 ** 20,
    backing: { path: 'later.raw', resolvedPath: base, exists: false },
  })
  expect(await images.check(path)).toMatchObject({ ok: true })
  writeFileSync(base, Buffer.alloc(2 ** 20, 0x5a))
  await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', path, base)
  expect(await images.compare(path, base, { formatB: 'raw' })).toMatchObject({ identical: true })
  expect(await images.info(path)).toMatchObject({ backing: { exists: true } })

  const [x, unchecked] = [folder('x'), true]
  expect(await rejection(images.create(x, { format: 'qcow2', backing }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('size'),
  })
  for (const format of ['vmdk', 'vhd', 'vhdx'] as const)
    expect(
      await rejection(images.create(x, { format, size: '1M', backing: { path: 'later', format, unchecked } })),
    ).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringContaining('backing') })
  // Who converts compares with it.
  expect(await rejection(images.convert(base, x, { format: 'qcow2', sourceFormat: 'raw', backing }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('unchecked'),
  })
  expect(existsSync(x)).toBe(false)
})

test('S26, I41: an unchecked backing is one that its caller may name, a file, and not the image itself', async () => {
  const folder = makeFolder()
  const { images } = openRuntime({ allowPaths: [folder('.')] })
  const path = folder('image.qcow2')
  const over = (backing: string, options = {}) =>
    rejection(
      images.create(path, {
        format: 'qcow2',
        size: '1M',
        backing: { path: backing, format: 'raw', unchecked: true },
        ...options,
      }),
    )
  expect(await over('/etc/passwd')).toMatchObject({ code: 'PERMISSION' })
  for (const protocol of ['nbd:localhost:1', 'json:{"driver":"null-co"}', 'file:/x'])
    expect(await over(protocol)).toMatchObject({ code: 'INVALID_ARGUMENT' })
  for (const self of [path, 'image.qcow2']) expect(await over(self)).toMatchObject({ code: 'IMAGE_CHAIN' })
  await images.create(path, { format: 'qcow2', size: '1M' })
  const before = bytesOf(path)
  for (const self of [path, './image.qcow2'])
    expect(await over(self, { overwrite: true })).toMatchObject({ code: 'IMAGE_CHAIN' })
  expect(bytesOf(path)).toBe(before)
})

test('I15: the preallocation modes allocate what they say', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const allocated = async (name: string, options: ImageCreateOptions) => {
    await images.create(folder(name), options)
    return statSync(folder(name)).blocks * 512
  }
  const size = '8M'
  expect(await allocated('off', { format: 'raw', size })).toBe(0)
  for (const preallocation of ['falloc', 'full'] as const) {
    expect(await allocated(`raw-${preallocation}`, { format: 'raw', size, preallocation })).toBe(8 * 2 ** 20)
    expect(await allocated(`q-${preallocation}`, { format: 'qcow2', size, preallocation })).toBeGreaterThan(8 * 2 ** 20)
  }
  expect(await allocated('q-off', { format: 'qcow2', size })).toBeLessThan(2 ** 20)
  expect(await allocated('q-meta', { format: 'qcow2', size, preallocation: 'metadata' })).toBeLessThan(2 ** 20)
})

test('I13, I56: without overwrite an existing file stays as it is; of ten concurrent creates one wins; nothing else is left', async () => {
  const { images } = openRuntime({ workers: 4 })
  const folder = makeFolder()
  writeFileSync(folder('old'), 'precious')
  expect(await rejection(images.create(folder('old'), { format: 'raw', size: 1 }))).toMatchObject({
    code: 'IMAGE_EXISTS',
    path: folder('old'),
  })
  expect(readFileSync(folder('old'), 'utf8')).toBe('precious')
  const races = await Promise.allSettled(
    Array.from({ length: 10 }, (_, index) => images.create(folder('new'), { format: 'raw', size: 512 * (index + 1) })),
  )
  const won = races.flatMap((race, index) => (race.status === 'fulfilled' ? [512 * (index + 1)] : []))
  expect(won.length).toBe(1)
  expect(statSync(folder('new')).size).toBe(won[0])
  for (const race of races) if (race.status === 'rejected') expect(race.reason).toMatchObject({ code: 'IMAGE_EXISTS' })
  const again = await images.create(folder('old'), { format: 'qcow2', size: '1M', overwrite: true })
  expect(again.format).toBe('qcow2')
  expect(readdirSync(folder()).sort()).toEqual(['new', 'old'])
})

test.each(['abort', 'close'])(
  'I13, H33: a create stopped by %s leaves the old file whole or the new one, and no other',
  async (how) => {
    const folder = makeFolder()
    for (let round = 0; round < 15; round++) {
      const runtime = openRuntime()
      writeFileSync(folder('image'), 'precious')
      const controller = new AbortController()
      const reason = new Error('stopped')
      const create = runtime.images.create(folder('image'), {
        format: 'raw',
        size: '16M',
        preallocation: 'full',
        overwrite: true,
        signal: controller.signal,
      })
      const late = setTimeout(() => (how === 'abort' ? controller.abort(reason) : void runtime.close()), round)
      const outcome = await settled(create)
      clearTimeout(late)
      await runtime.close()
      if (outcome.status === 'fulfilled') expect(statSync(folder('image')).size).toBe(2 ** 24)
      else {
        expect(readFileSync(folder('image'), 'utf8')).toBe('precious')
        if (how === 'abort') expect(outcome.reason).toBe(reason)
        else expect(outcome.reason).toMatchObject({ code: 'RUNTIME_CLOSED' })
      }
      // The worker of a runtime that was closed in its midst may not have got to it yet.
      await eventually(
        () => readdirSync(folder()),
        (names) => names.length === 1,
        'the temporary file to go',
      )
      expect(readdirSync(folder())).toEqual(['image'])
    }
  },
)

test('I36: check reports leaks without writing, repairs them when told to, and leaves the data', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('leaky.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '4M')
  await qemuIo(path, ['write -P 7 0 1M'])
  // A cluster that nothing refers to, with a count of 1 in the last refcount entry that the block has.
  const raw = readFileSync(path)
  const refcountTable = Number(raw.readBigUInt64BE(48))
  const block = Number(raw.readBigUInt64BE(refcountTable))
  const clusters = raw.length / 65536
  raw.writeUInt16BE(1, block + clusters * 2)
  writeFileSync(path, raw)
  truncateSync(path, (clusters + 1) * 65536)
  const before = bytesOf(path)
  const report = await images.check(path)
  expect(report).toMatchObject({ ok: false, leaks: 1, corruptions: 0, leaksFixed: 0 })
  expect(report.problems.length).toBe(1)
  expect(bytesOf(path)).toBe(before)
  expect(JSON.parse((await program('qemu-img', ['check', '--output=json', path])).stdout).leaks).toBe(1)
  expect(await images.check(path, { repair: 'leaks' })).toMatchObject({ leaksFixed: 1, corruptionsFixed: 0 })
  expect((await program('qemu-img', ['check', path])).code).toBe(0)
  await qemuIo(path, ['read -P 7 0 1M'])
})

test('info of a chain names each layer as qemu-img does', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  await images.create(folder('0.raw'), { format: 'raw', size: '4M' })
  await images.create(folder('1.qcow2'), { format: 'qcow2', backing: { path: '0.raw', format: 'raw' } })
  await images.create(folder('2.qcow2'), { format: 'qcow2', backing: { path: folder('1.qcow2'), format: 'qcow2' } })
  const info = await images.info(folder('2.qcow2'), { chain: true })
  const seen = JSON.parse(await qemuImg('info', '--backing-chain', '--output=json', folder('2.qcow2')))
  expect(info.chain?.map(({ format, virtualBytes, backing }) => [format, virtualBytes, backing?.path])).toEqual(
    seen.map((layer: Record<string, unknown>) => [layer.format, layer['virtual-size'], layer['backing-filename']]),
  )
  expect(info.backing).toEqual({
    path: folder('1.qcow2'),
    resolvedPath: folder('1.qcow2'),
    format: 'qcow2',
    exists: true,
  })
})

const hostile: [string, (header: Buffer) => void, string][] = [
  ['an empty file', () => {}, ''],
  ['a huge L1 table', (header) => header.writeUInt32BE(0xffffffff, 36), 'IMAGE_CORRUPT'],
  ['a cluster size of 2^63', (header) => header.writeUInt32BE(63, 20), 'IMAGE_CORRUPT'],
  ['a virtual size of 2^64-1', (header) => header.writeBigUInt64BE(2n ** 64n - 1n, 24), 'IMAGE_CORRUPT|UNSUPPORTED'],
  ['version 9', (header) => header.writeUInt32BE(9, 4), 'UNSUPPORTED'],
  ['an L1 table beyond the file', (header) => header.writeBigUInt64BE(2n ** 40n, 40), 'IMAGE_CORRUPT'],
  ['a backing path beyond the header', (header) => header.writeBigUInt64BE(2n ** 50n, 8), 'IMAGE_CORRUPT'],
  ['100,000 snapshots', (header) => header.writeUInt32BE(100_000, 60), 'IMAGE_CORRUPT|UNSUPPORTED'],
  ['a header length of 4 GiB', (header) => header.writeUInt32BE(0xffffffff, 100), 'IMAGE_CORRUPT'],
]
test.each(hostile)(
  'I45, I51: %s is refused, typed, by check and rebase and (or told by) info',
  async (name, lie, codes) => {
    const { images } = openRuntime()
    const path = makeFolder()('image.qcow2')
    await images.create(path, { format: 'qcow2', size: '1M' })
    const image = readFileSync(path)
    lie(image)
    if (name === 'a backing path beyond the header') image.writeUInt32BE(100, 16)
    writeFileSync(path, codes === '' ? '' : image)
    const rss = process.memoryUsage().rss
    for (const call of [
      () => images.check(path, { format: 'qcow2' }),
      () => images.rebase(path, { backing: null, format: 'qcow2' }),
      () => images.info(path, { format: 'qcow2' }),
    ]) {
      const outcome = await settled<unknown>(call())
      if (outcome.status === 'fulfilled') expect(name).toMatch(/L1 table beyond|snapshots/)
      else expect((outcome.reason as { code: string }).code).toMatch(new RegExp(codes || 'IMAGE_FORMAT|IMAGE_CORRUPT'))
    }
    expect(process.memoryUsage().rss - rss).toBeLessThan(64 * 2 ** 20)
  },
)

test('S17: a hostile backing name is escaped in messages', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  await qemuImg('create', '-q', '-u', '-f', 'qcow2', '-b', 'x\u001b[31m\nred', '-F', 'raw', folder('image'), '1M')
  const error = (await rejection(images.info(folder('image'), { chain: true }))) as Error
  expect(error.message).not.toMatch(/\p{Cc}/u)
  expect((await images.info(folder('image'))).backing?.path).toBe('x\u001b[31m\nred')
})

test('S26, I41: with allowPaths a caller’s path counts where it leads, links included', async () => {
  const folder = makeFolder()
  const outside = makeFolder()
  const free = openRuntime()
  await free.images.create(outside('secret'), { format: 'qcow2', size: '1M' })
  symlinkSync(outside('secret'), folder('link'))
  const runtime = openRuntime({ allowPaths: [folder()] })
  await runtime.images.create(folder('mine'), { format: 'qcow2', size: '1M' })
  expect((await runtime.images.info(folder('mine'))).format).toBe('qcow2')
  for (const path of [outside('secret'), folder('link'), `${folder()}/../${outside().split('/').at(-1)}/secret`]) {
    expect(await rejection(runtime.images.info(path))).toMatchObject({ code: 'PERMISSION' })
    expect(await rejection(runtime.rebase(path, { backing: null, mode: 'unsafe' }))).toMatchObject({
      code: 'PERMISSION',
    })
  }
  const made = runtime.images.create(outside('new'), { format: 'raw', size: 1 })
  expect(await rejection(made)).toMatchObject({ code: 'PERMISSION' })
  expect(existsSync(outside('new'))).toBe(false)
})

test('I41, I42: what an image names is refused outside of its directory, and what is no file is refused without being opened', async () => {
  const { images } = openRuntime({ home: makeFolder()() })
  const folder = makeFolder()
  const outside = makeFolder()
  writeFileSync(outside('secret'), Buffer.alloc(2 ** 20))
  await program('mkfifo', [folder('fifo')])
  symlinkSync(outside('secret'), folder('link'))
  const names = [
    outside('secret'),
    `../${outside().split('/').at(-1)}/secret`,
    'link',
    'fifo',
    '.',
    '/dev/zero',
    '/etc/passwd',
  ]
  for (const [index, name] of [
    ...names,
    'json:{"driver":"file","filename":"/etc/passwd"}',
    'nbd://localhost/x',
  ].entries()) {
    await qemuImg('create', '-q', '-u', '-f', 'qcow2', '-b', name, '-F', 'raw', folder(`${index}`), '1M')
    const error = await rejection(images.info(folder(`${index}`), { chain: true }))
    expect(error, name).toMatchObject({ code: expect.stringMatching(/^(PERMISSION|UNSUPPORTED|IMAGE_CHAIN)$/) })
    expect((await images.info(folder(`${index}`))).backing?.path).toBe(name)
  }
})

test('I43: an external data file reveals nothing: neither its bytes nor its size', async () => {
  const { images } = openRuntime({ home: makeFolder()() })
  const folder = makeFolder()
  const outside = makeFolder()
  const path = folder('image.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${outside('data')},data_file_raw=on`, path, '1M')
  writeFileSync(outside('data'), Buffer.alloc(2 ** 20, 'secret'))
  await images.create(folder('new.raw'), { format: 'raw', size: '1M' })
  const before = [bytesOf(path), bytesOf(outside('data'))]
  // One after the other: each locks the image.
  for (const call of [
    () => images.check(path, { repair: 'all' }),
    () => images.rebase(path, { backing: 'new.raw', backingFormat: 'raw' }),
    async () => {
      await images.create(folder('over'), { format: 'qcow2', backing: { path, format: 'qcow2' } })
      await images.rebase(folder('over'), { backing: null })
      throw Object.assign(new Error('it was read'), { code: 'READ' })
    },
  ])
    expect(await rejection(call())).toMatchObject({ code: expect.stringMatching(/^(UNSUPPORTED|PERMISSION)$/) })
  expect([bytesOf(path), bytesOf(outside('data'))]).toEqual(before)
})
