// images.convert: a guest reads from the target what it read from the source; qemu-img is the judge.
import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import type { ConvertOptions } from '../../../lib/image-types.js'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { holdInQemu, program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'
import { variedDisks } from '../../support/varied-disks.js'

const MIB = 2 ** 20

const targets: readonly ConvertOptions[] = [
  { format: 'raw' },
  { format: 'raw', sparseSize: 0 },
  { format: 'raw', preallocation: 'falloc', sparseSize: '64K' },
  { format: 'qcow2' },
  { format: 'qcow2', compat: '0.10', clusterSize: 512 },
  { format: 'qcow2', clusterSize: '2M', parallel: 3 },
  { format: 'qcow2', refcountBits: 1, compress: true },
  { format: 'qcow2', lazyRefcounts: true, preallocation: 'metadata' },
  { format: 'qcow2', compress: true, parallel: 1 },
  { format: 'qcow2', compress: true, compression: 'zstd', clusterSize: '4K' },
  { format: 'qcow2', size: '7M', sparseSize: '1M' },
  { format: 'qcow2', extendedL2: true },
  { format: 'qcow2', extendedL2: true, clusterSize: '16K', preallocation: 'metadata' },
  { format: 'qcow2', extendedL2: true, compress: true },
]

test.each(variedDisks)('I35: %s converts to every kind of target, and reads the same', async (_, make) => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const { path, format } = await make(folder)
  const target = folder('target')
  for (const options of targets) {
    const info = await images.convert(path, target, { ...options, sourceFormat: format, overwrite: true })
    expect(info).toMatchObject({ path: target, format: options.format, dirty: false })
    // Exits with 1 when a byte differs, or the longer one does not end in zeros.
    await qemuImg('compare', '-f', format, '-F', options.format, path, target)
    expect(await images.compare(path, target, { formatA: format, formatB: options.format })).toMatchObject({
      identical: true,
    })
    if (options.format !== 'qcow2') continue
    expect(await images.check(target)).toMatchObject({ ok: true })
    await qemuImg('check', '-q', target)
    const told = (await qemuInfo(target))['format-specific'] as { data: Record<string, unknown> }
    expect(told.data['compression-type'] ?? 'zlib').toBe(options.compression ?? 'zlib')
    expect(told.data['extended-l2'] ?? false).toBe(options.extendedL2 ?? false)
  }
})

test('I35: the file does not depend on how many threads made it', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const source = folder('source.raw')
  writeFileSync(
    source,
    Buffer.from(Array.from({ length: 8 * MIB }, (_, n) => (n % 97 < 50 ? n % 251 : (n * 7919) >> 8))),
  )
  for (const compress of [false, true]) {
    const hashes = new Set<string>()
    for (const parallel of [1, 2, 5, 16, undefined]) {
      const target = folder('target.qcow2')
      await images.convert(source, target, {
        format: 'qcow2',
        sourceFormat: 'raw',
        compress,
        parallel,
        overwrite: true,
      })
      hashes.add(bytesOf(target))
    }
    expect(hashes.size).toBe(1)
  }
})

test('I35: an overlay is written that holds only what its backing does not show', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [base, disk, target] = [folder('base.raw'), folder('disk.qcow2'), folder('target.qcow2')]
  writeFileSync(base, Buffer.alloc(8 * MIB, 0x11))
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', disk)
  await qemuIo(disk, ['write -P 0x22 1M 64K', 'write -z 2M 64K', 'write -P 0x11 3M 1M'])
  const info = await images.convert(disk, target, { format: 'qcow2', backing: { path: 'base.raw', format: 'raw' } })
  expect(info.backing).toMatchObject({ path: 'base.raw', exists: true })
  await qemuImg('compare', disk, target)
  const own: number[] = []
  for await (const { start, depth } of images.map(target)) if (depth === 0) own.push(start)
  expect(own).toEqual([MIB, 2 * MIB])
})

test('I35: several sources are joined as qemu-img joins them, into a new image and into one that is there', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [base, first, second] = [folder('base.raw'), folder('1.qcow2'), folder('2.raw')]
  writeFileSync(base, Buffer.alloc(3 * MIB, 0x11))
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', first, String(2 * MIB + 512))
  await qemuIo(first, ['write -P 0x22 1M 64K'])
  // In sectors of 512 the one behind it begins.
  writeFileSync(second, Buffer.alloc(100_001, 0x33))
  const sources = [first, second]
  for (const format of ['vmdk', 'vhd', 'vhdx'] as const) {
    sources.push(folder(`3.${format}`))
    await images.convert(second, folder(`3.${format}`), { format, sourceFormat: 'raw' })
  }
  const [theirs, there] = [folder('theirs.raw'), folder('there.qcow2')]
  await qemuImg('convert', '-O', 'raw', ...sources, theirs)
  await images.create(there, { format: 'qcow2', size: '16M' })
  await images.convert(sources, there, { existing: true })
  await qemuImg('compare', '-f', 'raw', theirs, there)
  for (const options of targets) {
    const ours = folder('ours')
    await images.convert(sources, ours, { ...options, overwrite: true })
    await qemuImg('compare', '-f', 'raw', '-F', options.format, theirs, ours)
  }
  // The same file twice.
  await images.convert([second, second], folder('twice.raw'), { format: 'raw' })
  expect(await readFile(folder('twice.raw'))).toEqual(
    Buffer.concat([readSectors(await readFile(second)), readSectors(await readFile(second))]),
  )

  // Files that are named in one call may lie beside each other or not.
  const elsewhere = makeFolder()('over.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', elsewhere)
  expect(await rejection(images.convert([second, elsewhere], folder('x'), { format: 'raw' }))).toMatchObject({
    code: 'PERMISSION',
  })
  await images.convert([base, elsewhere], folder('both.raw'), { format: 'raw' })
  expect(statSync(folder('both.raw')).size).toBe(6 * MIB)

  const flat = ['flat.vmdk', 'flat.vmdk'].map(folder)
  await qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', folder('flat.vmdk'), '1M')
  await truncate(folder('flat-flat.vmdk'), 2 * MIB)
  const [backing, snapshot] = [{ path: base, format: 'raw' as const }, 'clean']
  for (const refuse of [
    () => images.convert([], folder('x'), { format: 'raw' }),
    () => images.convert([first, 7 as never], folder('x'), { format: 'raw' }),
    () => images.convert(sources, folder('x'), { format: 'qcow2', backing }),
    () => images.convert(sources, folder('x'), { format: 'qcow2', snapshot }),
    () => images.convert([first, second], second, { existing: true, shared: true }),
    () => images.convert(flat, folder('flat-flat.vmdk'), { existing: true, format: 'raw', shared: true }),
    () => images.convert(Object.assign(new Array(2), { 0: first }), folder('x'), { format: 'raw' }),
    () => images.convert(new Array(1_000_000).fill(first), folder('x'), { format: 'raw' }),
  ])
    expect(await rejection(refuse())).toMatchObject({ code: 'INVALID_ARGUMENT' })
  expect(await rejection(images.convert([first, folder('gone')], folder('x'), { format: 'raw' }))).toMatchObject({
    code: 'IMAGE_NOT_FOUND',
    path: folder('gone'),
  })
  expect(readdirSync(folder('.')).filter((name) => name === 'x')).toEqual([])
})

/** As a guest reads them. */
const readSectors = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 511)])

const OFFSET_MASK = 0x00fffffffffffe00n

/** Where a qcow2 image's first second-level table is. */
const tableOf = (bytes: Buffer): number =>
  Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & OFFSET_MASK)

/** Lets the entries of a qcow2 image's first second-level table say what `entries` say, by their numbers. */
async function corrupt(path: string, entries: Record<number, bigint>): Promise<void> {
  const bytes = await readFile(path)
  const table = tableOf(bytes)
  for (const [number, entry] of Object.entries(entries)) bytes.writeBigUInt64BE(entry, table + 8 * Number(number))
  await writeFile(path, bytes)
}

const CLUSTER = 65536
const [PAST_THE_END, UNALIGNED] = [(1n << 63n) | (1n << 40n), (1n << 63n) | 0x1200n]

test('I35: what can be read of a damaged image is salvaged, as qemu-img does, and the rest is told', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [base, disk, target] = [folder('base.raw'), folder('disk.qcow2'), folder('target')]
  writeFileSync(base, Buffer.alloc(2 * MIB, 0x11))
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', disk)
  await qemuIo(disk, ['write -P 0x22 0 1M', 'write -c -P 0x33 1M 64K'])
  await qemuImg('snapshot', '-c', 'clean', disk)
  await corrupt(disk, { 3: PAST_THE_END, 4: PAST_THE_END, 8: UNALIGNED })
  const lost = [
    { start: 3 * CLUSTER, length: 2 * CLUSTER },
    { start: 8 * CLUSTER, length: CLUSTER },
  ]
  const unreadable = { bytes: 3 * CLUSTER, parts: lost }
  const wanted = Buffer.alloc(2 * MIB, 0x11)
  wanted.fill(0x22, 0, MIB).fill(0x33, MIB, MIB + CLUSTER)
  for (const { start, length } of lost) wanted.fill(0, start, start + length)

  expect(await rejection(images.convert(disk, target, { format: 'raw' }))).toMatchObject({
    code: 'IMAGE_CORRUPT',
    hint: expect.stringContaining('salvage: true'),
  })
  expect(readdirSync(folder('.'))).not.toContain('target')
  for (const options of targets) {
    const made = await images.convert(disk, target, { ...options, salvage: true, overwrite: true })
    expect(made.unreadable).toEqual(unreadable)
    await images.convert(target, folder('read'), { format: 'raw', sourceFormat: options.format, overwrite: true })
    expect((await readFile(folder('read'))).subarray(0, 2 * MIB).equals(wanted)).toBe(true)
  }
  const kept = await images.convert(disk, target, { format: 'raw', snapshot: 'clean', salvage: true, overwrite: true })
  expect(kept.unreadable).toEqual(unreadable)
  expect((await readFile(target)).equals(wanted)).toBe(true)
  const backing = { path: base, format: 'raw' as const }
  await images.convert(disk, folder('over.qcow2'), { format: 'qcow2', backing, salvage: true })
  await images.convert([disk, disk], folder('twice.raw'), { format: 'raw', salvage: true })
  expect((await readFile(folder('twice.raw'))).equals(Buffer.concat([wanted, wanted]))).toBe(true)
  await images.create(folder('there.vhdx'), { format: 'vhdx', size: '2M' })
  const there = await images.convert(disk, folder('there.vhdx'), { existing: true, salvage: true })
  expect(there.unreadable).toEqual(unreadable)
  const theirs = folder('theirs.raw')
  await qemuImg('convert', '--salvage', '-f', 'qcow2', '-O', 'raw', disk, theirs)
  expect((await readFile(theirs)).equals(wanted)).toBe(true)
  await qemuImg('compare', '-f', 'raw', theirs, folder('over.qcow2'))
  await qemuImg('compare', '-f', 'raw', theirs, folder('there.vhdx'))
  // Of what is sound nothing is lost, and who did not ask is told nothing.
  const sound = await images.convert(base, target, { format: 'raw', overwrite: true, salvage: true })
  expect(sound.unreadable).toEqual({ bytes: 0, parts: [] })
  expect(await images.convert(base, target, { format: 'raw', overwrite: true })).not.toHaveProperty('unreadable')
})

/** Lets the second entry of an image's table lead past the end of its file. */
const pastTheEnd: Readonly<Record<string, (bytes: Buffer) => void>> = {
  vmdk: (bytes) => {
    const directory = 512 * Number(bytes.readBigUInt64LE(56))
    bytes.writeUInt32LE(2 ** 30, 512 * bytes.readUInt32LE(directory) + 4)
  },
  vhd: (bytes) => bytes.writeUInt32BE(2 ** 30, Number(bytes.readBigUInt64BE(512 + 16)) + 4),
  vhdx: (bytes) => {
    const [regions, batId] = [192 * 1024, 0x2dc27766]
    const at = [16, 48].map((each) => regions + each).find((each) => bytes.readUInt32LE(each) === batId) as number
    bytes.writeBigUInt64LE((1n << 40n) | 6n, Number(bytes.readBigUInt64LE(at + 16)) + 8)
  },
}

test.each(Object.entries(pastTheEnd))('I35: a damaged %s is salvaged too', async (format, damage) => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [raw, disk, target] = [folder('a.raw'), folder('disk'), folder('target')]
  const sizes = { vmdk: CLUSTER, vhd: 2 * MIB, vhdx: MIB }
  const size = sizes[format as keyof typeof sizes]
  writeFileSync(raw, Buffer.alloc(3 * size, 0x44))
  const made = format === 'vhdx' ? { format, blockSize: size } : { format }
  await images.convert(raw, disk, { ...made, sourceFormat: 'raw' } as ConvertOptions)
  const bytes = await readFile(disk)
  damage(bytes)
  await writeFile(disk, bytes)
  expect(await rejection(images.convert(disk, target, { format: 'raw' }))).toMatchObject({ code: 'IMAGE_CORRUPT' })
  const { unreadable } = await images.convert(disk, target, { format: 'raw', salvage: true })
  expect(unreadable).toEqual({ bytes: size, parts: [{ start: size, length: size }] })
  expect((await readFile(target)).equals(Buffer.alloc(3 * size, 0x44).fill(0, size, 2 * size))).toBe(true)
})

test.each<[string, lost: number, damage: (bytes: Buffer) => Buffer]>([
  [
    'whose reference counts lie where its data do',
    0,
    (bytes) => {
      const counts = Number(bytes.readBigUInt64BE(48))
      const [first, second] = [0, 1].map((n) => bytes.readBigUInt64BE(tableOf(bytes) + 8 * n) & OFFSET_MASK)
      bytes.writeBigUInt64BE(first as bigint, counts)
      bytes.writeBigUInt64BE(second as bigint, counts + 8)
      return bytes
    },
  ],
  [
    'whose reference counts are gone',
    0,
    (bytes) => {
      bytes.writeBigUInt64BE(1n << 40n, 48)
      return bytes
    },
  ],
  [
    'whose snapshots are gone',
    0,
    (bytes) => {
      bytes.writeUInt32BE(3, 60)
      bytes.writeBigUInt64BE(1n << 40n, 64)
      return bytes
    },
  ],
  ['that is cut within its last cluster', CLUSTER / 2, (bytes) => bytes.subarray(0, bytes.length - CLUSTER / 2)],
  ['that is cut within its table', MIB, (bytes) => bytes.subarray(0, tableOf(bytes) + 36)],
])('I35: a qcow2 %s is salvaged, and its backing shows through nowhere', async (_what, lost, damage) => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [base, disk, target] = [folder('base.raw'), folder('disk.qcow2'), folder('target.raw')]
  writeFileSync(base, Buffer.alloc(MIB, 0x11))
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', disk)
  await qemuIo(disk, ['write -P 0x22 0 1M'])
  await writeFile(disk, damage(await readFile(disk)))
  const { unreadable } = await images.convert(disk, target, { format: 'raw', salvage: true })
  expect(unreadable).toEqual({ bytes: lost, parts: lost === 0 ? [] : [{ start: MIB - lost, length: lost }] })
  expect((await readFile(target)).equals(Buffer.alloc(MIB, 0x22).fill(0, MIB - lost))).toBe(true)
})

test('I35: a vmdk whose redundant directory leads to data is salvaged whole', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [raw, disk, target] = [folder('a.raw'), folder('disk.vmdk'), folder('target.raw')]
  writeFileSync(raw, Buffer.alloc(MIB, 0x44))
  await images.convert(raw, disk, { format: 'vmdk', sourceFormat: 'raw' })
  const bytes = await readFile(disk)
  const [redundant, directory] = [48, 56].map((at) => 512 * Number(bytes.readBigUInt64LE(at))) as [number, number]
  const grain = bytes.readUInt32LE(512 * bytes.readUInt32LE(directory))
  bytes.writeUInt32LE(grain, redundant)
  await writeFile(disk, bytes)
  expect(await rejection(images.convert(disk, target, { format: 'raw' }))).toMatchObject({ code: 'IMAGE_CORRUPT' })
  const { unreadable } = await images.convert(disk, target, { format: 'raw', salvage: true })
  expect(unreadable).toEqual({ bytes: 0, parts: [] })
  expect((await readFile(target)).equals(await readFile(raw))).toBe(true)
})

test('I35: a vmdk that is cut within its last grain is salvaged as far as it goes', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [raw, disk, target] = [folder('a.raw'), folder('disk.vmdk'), folder('target.raw')]
  writeFileSync(raw, Buffer.alloc(MIB, 0x44))
  await images.convert(raw, disk, { format: 'vmdk', sourceFormat: 'raw' })
  await writeFile(disk, (await readFile(disk)).subarray(0, -CLUSTER / 2))
  const { unreadable } = await images.convert(disk, target, { format: 'raw', salvage: true })
  expect(unreadable).toEqual({ bytes: CLUSTER / 2, parts: [{ start: MIB - CLUSTER / 2, length: CLUSTER / 2 }] })
  expect((await readFile(target)).equals(Buffer.alloc(MIB, 0x44).fill(0, MIB - CLUSTER / 2))).toBe(true)
})

test('I35: what is salvaged onto a backing that is damaged itself hides what nobody can read of that', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [base, disk, target] = [folder('base.qcow2'), folder('disk.qcow2'), folder('target.qcow2')]
  await qemuImg('create', '-q', '-f', 'qcow2', base, '1M')
  await qemuIo(base, ['write -P 0x11 0 1M'])
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', disk)
  await qemuIo(disk, ['write -P 0x22 256K 64K'])
  await corrupt(base, { 3: PAST_THE_END, 4: PAST_THE_END })
  const backing = { path: base, format: 'qcow2' as const }
  const { unreadable } = await images.convert(disk, target, { format: 'qcow2', backing, salvage: true })
  expect(unreadable).toEqual({ bytes: CLUSTER, parts: [{ start: 3 * CLUSTER, length: CLUSTER }] })
  await images.convert(target, folder('read.raw'), { format: 'raw' })
  const wanted = Buffer.alloc(MIB, 0x11)
    .fill(0, 3 * CLUSTER, 4 * CLUSTER)
    .fill(0x22, 4 * CLUSTER, 5 * CLUSTER)
  expect((await readFile(folder('read.raw'))).equals(wanted)).toBe(true)
})

test('the snapshot of a qcow2 is converted by id and by name, and nothing of the source changes', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [disk, target, before] = [folder('disk.qcow2'), folder('target.qcow2'), folder('before.raw')]
  await qemuImg('create', '-q', '-f', 'qcow2', disk, '4M')
  await qemuIo(disk, ['write -P 0x21 1M 64K'])
  await qemuImg('convert', '-O', 'raw', disk, before)
  await qemuImg('snapshot', '-c', 'clean', disk)
  await qemuIo(disk, ['write -P 0x22 0 3M'])
  const hash = bytesOf(disk)
  for (const snapshot of ['clean', '1']) {
    await images.convert(disk, target, { format: 'qcow2', snapshot, overwrite: true })
    await qemuImg('compare', '-f', 'raw', before, target)
  }
  expect(await rejection(images.convert(disk, folder('x'), { format: 'raw', snapshot: 'gone' }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('gone'),
  })
  expect(bytesOf(disk)).toBe(hash)
})

test('compressed clusters of text are small, and qemu-img and 7-Zip read them', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [source, target] = [folder('source.raw'), folder('target.qcow2')]
  const line = (n: number) => `${n}: the quick brown fox ${n * 7919} jumps over ${n % 13} lazy dogs\n`
  await writeFile(
    source,
    Array.from({ length: 60_000 }, (_, n) => line(n))
      .join('')
      .padEnd(4 * MIB, '.')
      .slice(0, 4 * MIB),
  )
  await images.convert(source, target, { format: 'qcow2', compress: true, sourceFormat: 'raw' })
  await qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', source, folder('theirs.qcow2'))
  expect(statSync(target).size).toBeLessThan(statSync(folder('theirs.qcow2')).size * 1.1)
  const { code } = await program('7zz', ['x', '-y', `-o${folder('out')}`, '-tqcow', target])
  expect(code).toBe(0)
  const [name] = readdirSync(folder('out'))
  expect((await readFile(`${folder('out')}/${name}`)).equals(await readFile(source))).toBe(true)
})

test.each(['raw', 'qcow2', 'vmdk', 'vhd', 'vhdx'] as const)(
  'I35: into a %s that is there, in place; what lies behind stays, and nothing else is taken for an option',
  async (format) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    const [source, target, expected] = [folder('source.qcow2'), folder('target'), folder('expected.raw')]
    await images.create(source, { format: 'qcow2', size: '2M' })
    await qemuIo(source, ['write -P 0x11 100k 300k', 'write -P 0x12 2047k 1k'])
    const kept = Buffer.alloc(3 * MIB, 0x77)
    await images.create(target, { format, size: '3M' })
    for (const bytes of [kept, Buffer.alloc(3 * MIB)]) {
      {
        await using disk = await images.open(target, { format })
        await disk.write(0, bytes)
      }
      const options = { existing: true, format, targetIsZero: bytes !== kept } as const
      const told: number[] = []
      const info = await images.convert(source, target, { ...options, onProgress: ({ done }) => void told.push(done) })
      expect(info).toMatchObject({ path: target, format, virtualBytes: 3 * MIB })
      expect(told.at(-1)).toBe(2 * MIB)
      await qemuImg('convert', '-O', 'raw', source, expected)
      writeFileSync(expected, Buffer.concat([await readFile(expected), bytes.subarray(2 * MIB)]))
      await qemuImg('compare', '-F', 'raw', '-f', format === 'vhd' ? 'vpc' : format, target, expected)
    }
    const refused = async (options: object, code: string) =>
      expect(
        await rejection(images.convert(source, target, { existing: true, format, ...options } as never)),
      ).toMatchObject({ code, op: 'images.convert' })
    await refused({ size: '3M' }, 'INVALID_ARGUMENT')
    await refused({ overwrite: true }, 'INVALID_ARGUMENT')
    await refused({ backing: { path: source, format: 'qcow2' } }, 'INVALID_ARGUMENT')
    await refused({ compress: true }, 'UNSUPPORTED')
    await refused({ existing: 'yes' }, 'INVALID_ARGUMENT')
  },
)

test('I53: a conversion in place that is aborted leaves a sound image', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [source, target] = [folder('source.raw'), folder('target.qcow2')]
  writeFileSync(source, Buffer.alloc(64 * MIB, 0x5a))
  await images.create(target, { format: 'qcow2', size: '64M' })
  const stop = new AbortController()
  const reason = new Error('not this one')
  const aborted = images.convert(source, target, {
    existing: true,
    sourceFormat: 'raw',
    signal: stop.signal,
    onProgress: ({ done }) => {
      if (done > 0) stop.abort(reason)
    },
  })
  expect(await rejection(aborted)).toBe(reason)
  expect(await images.check(target)).toMatchObject({ corruptions: 0 })
  await images.convert(source, target, { existing: true, sourceFormat: 'raw' })
  await qemuImg('compare', '-f', 'raw', source, target)
})

test('shared: what another program writes is examined, mapped, measured, compared and converted when asked to', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const held = folder('held.qcow2')
  await images.create(held, { format: 'qcow2', size: '1M' })
  await qemuIo(held, ['write -P 7 0 64k'])
  await images.create(folder('same.qcow2'), { format: 'qcow2', size: '1M' })
  await qemuIo(folder('same.qcow2'), ['write -P 7 0 64k'])
  const holder = await holdInQemu(held)
  const extents = async (shared: boolean) => {
    let count = 0
    for await (const _ of images.map(held, { shared })) count++
    return count
  }
  const calls = (shared: boolean) => [
    images.info(held, { shared }),
    images.check(held, { shared }),
    images.measure({ source: held, format: 'raw', shared }),
    images.compare(held, folder('same.qcow2'), { shared }),
    images.convert(held, folder('copy.raw'), { format: 'raw', overwrite: true, shared }),
    extents(shared),
  ]
  for (const refused of await Promise.all(calls(false).map((call) => rejection(call))))
    expect(refused).toMatchObject({ code: 'IMAGE_LOCKED' })
  const [info, check, measured, compared, , count] = await Promise.all(calls(true))
  expect({ info, check, measured, compared, count }).toMatchObject({
    info: { virtualBytes: MIB },
    check: { corruptions: 0 },
    measured: { fullyAllocatedBytes: MIB },
    compared: { identical: true },
    count: 2,
  })
  const onto = { existing: true, format: 'qcow2', shared: true } as const
  await holder.release()
  expect(await rejection(images.convert(held, held, onto))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  expect(await rejection(images.check(held, { shared: true, repair: 'all' }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
  })
})

test('I56: an aborted or refused conversion leaves no target, and an old one as it was', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const [source, target] = [folder('source.raw'), folder('target.qcow2')]
  writeFileSync(source, Buffer.alloc(64 * MIB, 0x5a))
  const stop = new AbortController()
  const reason = new Error('not this one')
  const aborted = images.convert(source, target, {
    format: 'qcow2',
    compress: true,
    sourceFormat: 'raw',
    parallel: 1,
    signal: stop.signal,
    onProgress: ({ done }) => {
      if (done > 0) stop.abort(reason)
    },
  })
  expect(await rejection(aborted)).toBe(reason)
  expect(readdirSync(folder())).toEqual(['source.raw'])
  writeFileSync(target, 'mine')
  const refused = async (options: object, code: string, from = source) => {
    expect(await rejection(images.convert(from, target, options as never))).toMatchObject({
      code,
      op: 'images.convert',
    })
    expect(readdirSync(folder()).length).toBeLessThanOrEqual(3)
    expect(statSync(target).size).toBe(4)
  }
  await refused({ format: 'qcow2' }, 'IMAGE_EXISTS')
  await refused({ format: 'qcow2', overwrite: true }, 'IMAGE_NOT_FOUND', folder('gone'))
  await refused({ format: 'qcow2', overwrite: true, size: '1M' }, 'INVALID_ARGUMENT')
  await refused({ format: 'raw', overwrite: true, compress: true }, 'UNSUPPORTED')
  await refused({ format: 'qcow2', overwrite: true, compress: true, preallocation: 'full' }, 'INVALID_ARGUMENT')
  await refused({ format: 'qcow2', overwrite: true, sparseSize: 1000 }, 'INVALID_ARGUMENT')
  await refused({ format: 'qcow2', overwrite: true, parallel: 17 }, 'INVALID_ARGUMENT')
  await refused({ format: 'qcow2', overwrite: true, compat: '0.10', compression: 'zstd' }, 'INVALID_ARGUMENT')
  await refused({ format: 'qcow2', overwrite: true, clusters: 1 }, 'INVALID_ARGUMENT')
  const held = folder('held.qcow2')
  await images.create(held, { format: 'qcow2', size: '1M' })
  const holder = await holdInQemu(held)
  await refused({ format: 'raw', overwrite: true }, 'IMAGE_LOCKED', held)
  await holder.release()
})

test('progress is in bytes of the disk, and only grows', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  writeFileSync(folder('source.raw'), Buffer.alloc(8 * MIB, 1))
  const seen: { phase: string; done: number; total: number | null; unit: string }[] = []
  await images.convert(folder('source.raw'), folder('target.qcow2'), {
    format: 'qcow2',
    sourceFormat: 'raw',
    onProgress: (progress) => seen.push(progress),
  })
  expect(seen.map(({ done }) => done)).toEqual(seen.map(({ done }) => done).toSorted((a, b) => a - b))
  for (const each of seen) expect(each).toMatchObject({ phase: 'convert', total: 8 * MIB, unit: 'bytes' })
})
