// images.resize: what a guest reads stays, what it gains is zeros, and nothing shrinks unasked.
import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { holdInQemu, program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'

const MIB = 2 ** 20

/** qemu-io reads these patterns, or fails. */
const reads = (path: string, commands: string[], format = 'qcow2') => qemuIo(path, commands, format)

test.each([[[]], [['-o', 'cluster_size=512']], [['-o', 'compat=0.10']], [['-o', 'refcount_bits=1']]])(
  'I34: an overlay with %j grows over a larger backing, which does not show through',
  async (options) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    writeFileSync(folder('base.raw'), Buffer.alloc(8 * MIB, 0x11))
    const overlay = folder('overlay.qcow2')
    await qemuImg('create', '-q', '-f', 'qcow2', ...options, '-b', 'base.raw', '-F', 'raw', overlay, '1000K')
    await qemuIo(overlay, ['write -P 0x31 100K 64K'])
    const info = await images.resize(overlay, '12M')
    expect(info).toMatchObject({ path: overlay, virtualBytes: 12 * MIB, backing: { path: 'base.raw', exists: true } })
    expect((await qemuInfo(overlay))['virtual-size']).toBe(12 * MIB)
    await reads(overlay, ['read -P 0x11 0 100K', 'read -P 0x31 100K 64K', 'read -P 0x11 164K 836K'])
    await reads(overlay, [`read -P 0 1000K ${12 * 1024 - 1000}K`])
    expect((await program('qemu-img', ['check', overlay])).code).toBe(0)
    expect(await images.check(overlay)).toMatchObject({ ok: true })
  },
)

test('I34: a smaller disk needs shrink: true; then it loses its end, which does not come back, and its file gets smaller', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  for (const format of ['raw', 'qcow2'] as const) {
    const disk = folder(`disk.${format}`)
    await qemuImg('create', '-q', '-f', format, disk, '8M')
    await qemuIo(disk, ['write -P 0x31 0 8M'], format)
    const before = bytesOf(disk)
    const refused = await rejection(images.resize(disk, '3M', { format }))
    expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT', argument: 'shrink', op: 'images.resize' })
    expect(refused).toHaveProperty('hint', expect.stringContaining('shrink: true'))
    expect(bytesOf(disk)).toBe(before)
    expect(await images.resize(disk, '3M', { shrink: true, format })).toMatchObject({ virtualBytes: 3 * MIB })
    expect(statSync(disk).size).toBeLessThan(4 * MIB)
    await images.resize(disk, '8M', { format })
    await reads(disk, ['read -P 0x31 0 3M', 'read -P 0 3M 5M'], format)
    if (format === 'qcow2') expect((await program('qemu-img', ['check', disk])).code).toBe(0)
  }
})

test.each([
  ['vhd', 'dynamic'],
  ['vhd', 'fixed'],
  ['vhdx', 'dynamic'],
  ['vhdx', 'fixed'],
] as const)(
  'I34: a %s, %s, gets larger and smaller, and QEMU, 7-Zip and libvhdi read what is there then',
  async (format, subformat) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    const disk = folder(`disk.${format}`)
    const qemu = format === 'vhd' ? 'vpc' : format
    await images.create(disk, { format, subformat, size: '5M' })
    await qemuIo(disk, ['write -P 0x31 0 5M'], qemu)
    const agrees = async (bytes: number, commands: string[]) => {
      expect(JSON.parse(await qemuImg('info', '--output=json', '-f', qemu, disk))['virtual-size']).toBe(bytes)
      await reads(disk, commands, qemu)
      await images.convert(disk, folder('copy.raw'), { format: 'raw', sourceFormat: format, overwrite: true })
      await qemuImg('compare', '-f', qemu, '-F', 'raw', disk, folder('copy.raw'))
      expect((await program('7zz', ['e', '-y', `-o${folder('out')}`, disk])).code).toBe(0)
      const [name] = readdirSync(folder('out'))
      expect(bytesOf(folder(`out/${name}`))).toBe(bytesOf(folder('copy.raw')))
      expect(await images.check(disk, { format })).toMatchObject({ ok: true })
    }
    expect(await rejection(images.resize(disk, '3M', { format }))).toMatchObject({ argument: 'shrink' })
    expect(await images.resize(disk, '300M', { format })).toMatchObject({ virtualBytes: 300 * MIB })
    await agrees(300 * MIB, ['read -P 0x31 0 5M', 'read -P 0 5M 295M'])
    await qemuIo(disk, ['write -P 0x32 299M 1M'], qemu)
    expect(await images.resize(disk, '3M', { format, shrink: true })).toMatchObject({ virtualBytes: 3 * MIB })
    await agrees(3 * MIB, ['read -P 0x31 0 3M'])
    await images.resize(disk, '9M', { format })
    await agrees(9 * MIB, ['read -P 0x31 0 3M', 'read -P 0 3M 6M'])
  },
)

test('I34: sizes are rounded up to 512, as those of new images are; the same size changes nothing', async () => {
  const { images } = openRuntime()
  const disk = makeFolder()('disk.qcow2')
  await images.create(disk, { format: 'qcow2', size: '1M' })
  expect(await images.resize(disk, MIB + 1)).toMatchObject({ virtualBytes: MIB + 512 })
  const before = bytesOf(disk)
  expect(await images.resize(disk, MIB + 512, { shrink: true })).toMatchObject({ virtualBytes: MIB + 512 })
  expect(bytesOf(disk)).toBe(before)
})

test.each(['falloc', 'full'] as const)(
  'I15, I34: preallocation %s takes the space that a disk gains',
  async (preallocation) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    await images.create(folder('disk.raw'), { format: 'raw', size: '1M' })
    const seen: string[] = []
    const info = await images.resize(folder('disk.raw'), '9M', {
      preallocation,
      onProgress: ({ phase }) => seen.push(phase),
    })
    expect(info.virtualBytes).toBe(9 * MIB)
    expect(statSync(folder('disk.raw')).blocks * 512).toBeGreaterThanOrEqual(8 * MIB)
    expect(seen.every((phase) => phase === 'allocate')).toBe(true)
    const disk = folder('disk.qcow2')
    await images.create(disk, { format: 'qcow2', size: '1M' })
    await qemuIo(disk, ['write -P 0x31 0 1M'])
    await images.resize(disk, '9M', { preallocation })
    expect(statSync(disk).blocks * 512).toBeGreaterThanOrEqual(9 * MIB)
    await reads(disk, ['read -P 0x31 0 1M', 'read -P 0 1M 8M'])
    expect(await images.check(disk)).toMatchObject({ leaks: 0, corruptions: 0, allocatedClusters: 9 * 16 })
  },
)

test('I34, I37: a disk is resized beside its snapshots, each of which has the size that it was', async () => {
  const { images } = openRuntime()
  const disk = makeFolder()('disk.qcow2')
  await images.create(disk, { format: 'qcow2', size: '1M' })
  await qemuIo(disk, ['write -P 1 0 1M'])
  await images.snapshots.create(disk, 'small')
  await images.resize(disk, '3M')
  await qemuIo(disk, ['write -P 2 512k 2M'])
  await images.snapshots.create(disk, 'large')
  await images.resize(disk, '512K', { shrink: true })
  expect((await images.check(disk)).leaks).toBe(0)
  for (const [name, megabytes, read] of [
    ['large', 3, ['read -P 1 0 512k', 'read -P 2 512k 2M', 'read -P 0 2560k 512k']],
    ['small', 1, ['read -P 1 0 1M']],
  ] as const) {
    await qemuImg('snapshot', '-a', name, disk)
    expect((await images.info(disk)).virtualBytes).toBe(megabytes * MIB)
    await qemuIo(disk, read)
  }
  await qemuImg('check', disk)
})

test('I34, I39: internal snapshots of version 2, a lock, a missing file and an aborted signal refuse, and write nothing', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const disk = folder('disk.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', disk, '1M')
  const holder = await holdInQemu(disk)
  expect(await rejection(images.resize(disk, '2M'))).toMatchObject({ code: 'IMAGE_LOCKED', path: disk })
  await holder.release()
  await qemuImg('snapshot', '-c', 'one', disk)
  const before = bytesOf(disk)
  expect(await rejection(images.resize(disk, '2M'))).toMatchObject({
    code: 'UNSUPPORTED',
    message: expect.stringContaining('internal snapshots'),
  })
  expect(await rejection(images.resize(folder('gone'), '2M'))).toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  const reason = new Error('not now')
  expect(await rejection(images.resize(disk, '2M', { signal: AbortSignal.abort(reason) }))).toBe(reason)
  expect(bytesOf(disk)).toBe(before)
})
