// qcow2 images with extended L2 entries: made here or by qemu-img, written on either side, and read alike on both.
import { writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { sluicebox } from '../../support/cli.js'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { guestHash, program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'

const KIB = 1024
const DISK = 4 * KIB * KIB

/** Numbers below `limit`, the same in every run. */
function numbers(seed: number): (limit: number) => number {
  let state = BigInt(seed)
  return (limit) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) % 2n ** 64n
    return Number(state >> 33n) % limit
  }
}

/** 512 bytes to 70 KiB, at odd places. */
interface Change {
  readonly offset: number
  readonly length: number
  /** Of every byte; 0 are zeros. */
  readonly byte: number
}

function changes(seed: number, count: number): Change[] {
  const next = numbers(seed)
  return Array.from({ length: count }, (_, n) => {
    const offset = next(DISK / 512 - 140) * 512
    return { offset, length: (1 + next(140)) * 512, byte: next(3) === 0 ? 0 : 1 + (n % 250) }
  })
}

const asCommands = (list: readonly Change[]) =>
  list.map(({ offset, length, byte }) => `write -q ${byte === 0 ? '-z' : `-P ${byte}`} ${offset} ${length}`)

function applied(bytes: Buffer, list: readonly Change[]): Buffer {
  for (const { offset, length, byte } of list) bytes.fill(byte, offset, offset + length)
  return bytes
}

async function bytesByQemu(path: string, raw: string): Promise<Buffer> {
  await qemuImg('convert', '-f', 'qcow2', '-O', 'raw', path, raw)
  return readFile(raw)
}

const shapes = [
  ['16 KiB clusters', { clusterSize: '16K' }, 'cluster_size=16k'],
  ['64 KiB clusters', {}, 'cluster_size=64k'],
  ['2 MiB clusters', { clusterSize: '2M' }, 'cluster_size=2M'],
] as const

test.each(shapes)('%s: what is written at odd places by either side reads the same on both', async (_, own, theirs) => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const base = folder('base.raw')
  writeFileSync(base, applied(Buffer.alloc(DISK), changes(1, 60)))
  for (const over of [false, true]) {
    const backing = over ? { backing: { path: base, format: 'raw' as const } } : {}
    const [ours, other] = [folder(`ours-${over}.qcow2`), folder(`theirs-${over}.qcow2`)]
    await images.create(ours, { format: 'qcow2', extendedL2: true, size: DISK, ...own, ...backing })
    const named = over ? ['-b', base, '-F', 'raw'] : []
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', `extended_l2=on,${theirs}`, ...named, other, String(DISK))
    expect((await qemuInfo(ours))['format-specific']).toEqual((await qemuInfo(other))['format-specific'])
    const expected = over ? await readFile(base) : Buffer.alloc(DISK)
    for (const [path, seeds] of [
      [ours, [2, 3]],
      [other, [2, 3]],
    ] as const) {
      const bytes = Buffer.from(expected)
      for (const seed of seeds) {
        // One round here, one there, so that each writes into what the other left.
        await qemuIo(path, asCommands(changes(seed, 40)))
        applied(bytes, changes(seed, 40))
        await using disk = await images.open(path)
        for (const { offset, length, byte } of changes(seed + 10, 40)) {
          if (byte === 0) await disk.zero(offset, length)
          else await disk.write(offset, Buffer.alloc(length, byte))
        }
        applied(bytes, changes(seed + 10, 40))
        await disk.close()
        expect((await bytesByQemu(path, folder('raw'))).equals(bytes)).toBe(true)
        expect((await program('qemu-img', ['check', path])).code).toBe(0)
        expect(await images.check(path)).toMatchObject({ ok: true, corruptions: 0, leaks: 0 })
        const read = await images.open(path, { readonly: true })
        expect(Buffer.from(await read.read(0, DISK)).equals(bytes)).toBe(true)
        await read.close()
      }
    }
    await qemuImg('compare', '-f', 'qcow2', '-F', 'qcow2', ours, other)
  }
})

test('I16, I17, I18: rebase, both ways between subclusters and none, leaves what the guest reads', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const [plain, parts] = [folder('plain.qcow2'), folder('parts.qcow2')]
  await runtime.images.create(plain, { format: 'qcow2', size: DISK })
  await runtime.images.create(parts, { format: 'qcow2', size: DISK, extendedL2: true })
  await qemuIo(plain, asCommands(changes(4, 50)))
  await qemuIo(parts, asCommands(changes(5, 50)))
  const overlay = folder('overlay.qcow2')
  for (const extendedL2 of [false, true]) {
    await runtime.images.create(overlay, {
      format: 'qcow2',
      extendedL2,
      overwrite: true,
      backing: { path: plain, format: 'qcow2' },
    })
    await qemuIo(overlay, asCommands(changes(6, 30)))
    const guest = await guestHash(overlay)
    await runtime.rebase(overlay, { backing: parts, backingFormat: 'qcow2' })
    expect(await guestHash(overlay)).toBe(guest)
    expect((await program('qemu-img', ['check', overlay])).code).toBe(0)
    await qemuImg('rebase', '-f', 'qcow2', '-b', plain, '-F', 'qcow2', overlay)
    expect(await guestHash(overlay)).toBe(guest)
    await runtime.rebase(overlay, { backing: null })
    expect(await guestHash(overlay)).toBe(guest)
    expect(await runtime.images.check(overlay)).toMatchObject({ ok: true })
    expect((await qemuInfo(overlay))['backing-filename']).toBeUndefined()
  }
})

test('a rebase copies subclusters, not the clusters around them', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  await qemuImg('create', '-q', '-f', 'raw', folder('old'), '1M')
  await qemuImg('create', '-q', '-f', 'raw', folder('new'), '1M')
  await qemuIo(folder('old'), ['write -P 7 129K 1K'], 'raw')
  const overlay = folder('o.qcow2')
  await runtime.images.create(overlay, {
    format: 'qcow2',
    extendedL2: true,
    backing: { path: folder('old'), format: 'raw' },
  })
  expect(await runtime.rebase(overlay, { backing: folder('new'), backingFormat: 'raw' })).toMatchObject({
    clustersCopied: 1,
    bytesCopied: 2 * KIB,
  })
})

test('a resize and a snapshot by either side keep what is there', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const path = folder('a.qcow2')
  await images.create(path, { format: 'qcow2', extendedL2: true, size: DISK })
  await qemuIo(path, asCommands(changes(7, 60)))
  const bytes = applied(Buffer.alloc(DISK), changes(7, 60))
  await images.resize(path, DISK - 37 * KIB, { shrink: true })
  await images.resize(path, DISK)
  bytes.fill(0, DISK - 37 * KIB)
  expect((await bytesByQemu(path, folder('raw'))).equals(bytes)).toBe(true)
  await images.snapshots.create(path, 'ours')
  await qemuIo(path, asCommands(changes(8, 40)))
  await qemuImg('snapshot', '-c', 'theirs', path)
  await images.snapshots.apply(path, 'ours')
  expect((await bytesByQemu(path, folder('raw'))).equals(bytes)).toBe(true)
  await images.snapshots.apply(path, 'theirs')
  applied(bytes, changes(8, 40))
  expect((await bytesByQemu(path, folder('raw'))).equals(bytes)).toBe(true)
  await images.snapshots.remove(path, 'ours')
  await qemuImg('snapshot', '-d', 'theirs', path)
  expect((await program('qemu-img', ['check', path])).code).toBe(0)
})

test('I46: a subcluster that is both allocated and zeros is counted by check, and not read', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('a.qcow2')
  await images.create(path, { format: 'qcow2', extendedL2: true, size: DISK })
  await qemuIo(path, ['write -P 1 0 64K', 'write -P 2 64K 64K'])
  const file = await readFile(path)
  const l2 = Number(file.readBigUInt64BE(Number(file.readBigUInt64BE(40))) & 0x00fffffffffffe00n)
  file.writeUInt32BE(1, l2 + 8)
  writeFileSync(path, file)
  expect((await program('qemu-img', ['check', path])).code).toBe(2)
  expect(await images.check(path)).toMatchObject({ ok: false, corruptions: 1 })
  await using disk = await images.open(path, { readonly: true })
  expect(await rejection(disk.read(0, 512))).toMatchObject({ code: 'IMAGE_CORRUPT' })
  expect(Buffer.from(await disk.read(64 * KIB, 4)).equals(Buffer.alloc(4, 2))).toBe(true)
})

test('I9: version 2 and clusters below 16 KiB have no subclusters', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  for (const options of [{ compat: '0.10' }, { clusterSize: '8K' }] as const) {
    const made = images.create(folder('a'), { format: 'qcow2', extendedL2: true, size: DISK, ...options })
    expect(await rejection(made)).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('extendedL2'),
    })
  }
  const refused = await sluicebox(folder(), 'image', 'create', '-f', 'qcow2', '-o', 'extended_l2=perhaps', 'a', '1M')
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining(`'extended_l2'`) })
})
