// VHD and VHDX through a Runtime, in both directions: qemu-img and libvhdi read what is written here, and the reverse.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import type { DiskFormat, ImageCreateOptions, Images } from '../../../lib/index.js'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { program, qemuImg, qemuIo } from '../../support/qemu.js'

const MIB = 2 ** 20
const GIB = 2 ** 30
const names = { vhd: 'vpc', vhdx: 'vhdx' } as const

const qemuSees = async (path: string, format: 'vhd' | 'vhdx') =>
  JSON.parse(await qemuImg('info', '-f', names[format], '--output=json', path))

/** What this engine reads of `path`, as a raw file: an overlay over it takes all of it in, and qemu-img only unpacks that. */
async function readHere(images: Images, path: string, format: DiskFormat): Promise<string> {
  const overlay = `${path}.overlay`
  await images.create(overlay, { format: 'qcow2', backing: { path, format }, overwrite: true })
  await images.rebase(overlay, { backing: null })
  await qemuImg('convert', '-f', 'qcow2', '-O', 'raw', overlay, `${path}.raw`)
  return `${path}.raw`
}

/** What this engine reads of `path` is what qemu-img reads, and as long. */
async function requireReadHere(images: Images, path: string, format: 'vhd' | 'vhdx') {
  const raw = await readHere(images, path, format)
  expect(statSync(raw).size).toBe((await qemuSees(path, format))['virtual-size'])
  await qemuImg('compare', '-f', 'raw', '-F', names[format], raw, path)
}

/** Writes through this engine: an overlay's data is committed into `path`. */
async function writeHere(images: Images, path: string, format: DiskFormat, commands: readonly string[]) {
  const overlay = `${path}.overlay`
  await images.create(overlay, { format: 'qcow2', backing: { path, format }, overwrite: true })
  await qemuIo(overlay, commands)
  await images.commit(overlay)
}

const created: (ImageCreateOptions & { format: 'vhd' | 'vhdx' })[] = [
  { format: 'vhd', size: '10M' },
  { format: 'vhd', size: 512 },
  { format: 'vhd', size: 0 },
  { format: 'vhd', size: 12345 * 512 },
  { format: 'vhd', size: GIB },
  { format: 'vhd', size: 127 * GIB },
  { format: 'vhd', size: 2040 * GIB },
  { format: 'vhd', size: '10M', blockSize: '512K' },
  { format: 'vhd', size: '10M', blockSize: '256M' },
  { format: 'vhd', size: '3M', subformat: 'fixed' },
  { format: 'vhd', size: 512, subformat: 'fixed' },
  { format: 'vhdx', size: '10M' },
  { format: 'vhdx', size: 512 },
  { format: 'vhdx', size: 12345 * 512 },
  { format: 'vhdx', size: GIB, blockSize: '1M' },
  { format: 'vhdx', size: '200G' },
  { format: 'vhdx', size: '64T' },
  { format: 'vhdx', size: '10M', blockSize: '256M' },
  { format: 'vhdx', size: '10M', logSize: '3M' },
  { format: 'vhdx', size: '3M', subformat: 'fixed', blockSize: '1M' },
]
test.each(created)('I6: %j is what qemu-img and libvhdi see, of exactly that size, and clean', async (options) => {
  const { images } = openRuntime()
  const path = makeFolder()('image')
  const made = await images.create(path, options)
  const size = typeof options.size === 'number' ? options.size : made.virtualBytes
  expect(made).toMatchObject({ format: options.format, virtualBytes: size, dirty: false, corrupt: false })
  const seen = await qemuSees(path, options.format)
  expect(seen['virtual-size']).toBe(size)
  expect(seen['cluster-size']).toBe(made.clusterBytes)
  if (options.blockSize === '256M') expect(made.clusterBytes).toBe(256 * MIB)
  expect(made.specific.subformat).toBe(options.subformat ?? 'dynamic')
  if ('logSize' in options) expect(made.specific['log-size']).toBe(3 * MIB)
  // Probed, and by name.
  const { allocatedBytes, ...rest } = made
  expect(await images.info(path)).toMatchObject(rest)
  expect(await images.info(path, { format: options.format })).toMatchObject(rest)
  if (options.subformat !== 'fixed') expect(allocatedBytes).toBeLessThan(20 * MIB)
  expect(await images.check(path)).toMatchObject({ ok: true, corruptions: 0, leaks: 0, problems: [] })
  if (options.format === 'vhdx') expect((await program('qemu-img', ['check', '-f', 'vhdx', path])).code).toBe(0)
  if (size === 0) return
  const told = await program('vhdiinfo', [path])
  expect(told.code, told.stderr).toBe(0)
  expect(told.stdout).toMatch(new RegExp(`Media size[^\\n]*\\b${size} bytes`))
})

const theirs: ['vhd' | 'vhdx', string][] = [
  ['vhd', 'subformat=dynamic'],
  ['vhd', 'subformat=fixed'],
  ['vhd', 'subformat=dynamic,force_size=on'],
  ['vhd', 'subformat=fixed,force_size=on'],
  ['vhdx', 'subformat=dynamic'],
  ['vhdx', 'subformat=fixed'],
  ['vhdx', 'block_size=1M'],
  ['vhdx', 'block_size=256M'],
  ['vhdx', 'block_state_zero=off'],
  ['vhdx', 'log_size=5M'],
]
test.each(theirs)('I6: a %s that qemu-img made with %s is read here as there, and written', async (format, options) => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const path = folder('image')
  const writes = ['write -P 0x11 0 64K', 'write -P 0x22 3M 1M', 'write -P 0x33 5000K 3K']
  await qemuImg('create', '-q', '-f', names[format], '-o', options, path, '10M')
  await qemuIo(path, writes, names[format])
  const seen = await qemuSees(path, format)
  const info = await images.info(path)
  expect(info).toMatchObject({ format, virtualBytes: seen['virtual-size'], dirty: false })
  expect(info.clusterBytes).toBe(seen['cluster-size'])
  expect(await images.check(path)).toMatchObject({ ok: true })
  await requireReadHere(images, path, format)
  await writeHere(images, path, format, ['write -P 0x44 1M 128K', 'write -z 3M 64K', 'write -P 0x55 7M 512'])
  await qemuIo(
    path,
    [
      'read -P 0x11 0 64K',
      'read -P 0x44 1M 128K',
      'read -P 0 3M 64K',
      'read -P 0x22 3136K 960K',
      'read -P 0x55 7M 512',
    ],
    names[format],
  )
  expect(await images.check(path)).toMatchObject({ ok: true })
  if (format === 'vhdx') expect((await program('qemu-img', ['check', '-f', 'vhdx', path])).code).toBe(0)
  await requireReadHere(images, path, format)
})

test.each(['vhd', 'vhdx'] as const)(
  'a %s made and written here is written by qemu-io, and read here',
  async (format) => {
    const { images } = openRuntime()
    const path = makeFolder()('image')
    for (const subformat of ['dynamic', 'fixed'] as const) {
      await images.create(path, { format, subformat, size: '10M', overwrite: true })
      await writeHere(images, path, format, ['write -P 0x31 2M 1M'])
      await qemuIo(path, ['read -P 0x31 2M 1M', 'write -P 0x32 0 4K', 'write -P 0x33 2M 4K'], names[format])
      await requireReadHere(images, path, format)
      expect(await images.check(path)).toMatchObject({ ok: true })
    }
  },
)

test('I14: an overlay over a vhd records it as qemu-img writes it, and each side opens what the other made', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  await images.create(folder('base.vhd'), { format: 'vhd', size: '4M' })
  const made = await images.create(folder('ours'), { format: 'qcow2', backing: { path: 'base.vhd', format: 'vhd' } })
  expect(made.backing).toMatchObject({ path: 'base.vhd', format: 'vhd', exists: true })
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.vhd', '-F', 'vpc', folder('theirs'))
  for (const name of ['ours', 'theirs']) {
    const chain = JSON.parse(await qemuImg('info', '--backing-chain', '--output=json', folder(name)))
    expect(chain.map((layer: Record<string, unknown>) => layer.format)).toEqual(['qcow2', 'vpc'])
    const info = await images.info(folder(name), { chain: true })
    expect(info.chain?.map((layer) => layer.format)).toEqual(['qcow2', 'vhd'])
    expect(info.backing?.format).toBe('vhd')
  }
  await images.create(folder('new.vhdx'), { format: 'vhdx', size: '4M' })
  const moved = await images.rebase(folder('ours'), { backing: 'new.vhdx' })
  expect(moved).toMatchObject({ backingFormat: 'vhdx', to: 'new.vhdx' })
  expect(await images.rebase(folder('ours'), { backing: 'base.vhd', backingFormat: 'vhd' })).toMatchObject({
    backingFormat: 'vhd',
  })
  await qemuImg('compare', folder('ours'), folder('theirs'))
})

test.each(['vhd', 'vhdx'] as const)(
  'I14, I20: a %s is created over one, of its size, and libvhdi knows its parent',
  async (format) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    const base = folder(`base.${format}`)
    await images.create(base, { format, size: '6M' })
    await writeHere(images, base, format, ['write -P 0x11 1M 1M'])
    const made = await images.create(folder('child'), { format, backing: { path: `base.${format}`, format } })
    expect(made).toMatchObject({ virtualBytes: 6 * MIB, specific: { subformat: 'differencing' } })
    expect(made.backing).toMatchObject({ path: `base.${format}`, resolvedPath: base, format, exists: true })
    const chain = (await images.info(folder('child'), { chain: true })).chain ?? []
    expect(chain.map((layer) => layer.format)).toEqual([format, format])
    if (format === 'vhd') expect(made.specific['parent-id']).toBe(chain[1]?.specific.id)
    expect(await images.check(folder('child'))).toMatchObject({ ok: true, leaks: 0 })
    expect((await images.compare(folder('child'), base)).identical).toBe(true)
    const told = await program('vhdiinfo', [folder('child')])
    expect(told.code, told.stderr).toBe(0)
    expect(told.stdout).toMatch(/Disk type[^\n]*Differential/)
    expect(told.stdout).toMatch(new RegExp(`Parent identifier[^\\n]*${made.specific['parent-id']}`))
    // Of a vhdx it tells no name that is relative.
    if (format === 'vhd') expect(told.stdout).toMatch(/Parent filename[^\n]*base\.vhd/)
  },
)

/** All that a guest reads of `path`, and what it rests on. */
async function guestOf(images: Images, path: string): Promise<string> {
  await using disk = await images.open(path, { readonly: true })
  return hashOf(await disk.read(0, disk.size))
}

/** The same as 7-Zip reads it, which looks for the parents by itself. QEMU has no differencing images. */
async function guestOf7z(path: string, format: 'vhd' | 'vhdx'): Promise<string> {
  const out = makeFolder()()
  const { code, stdout, stderr } = await program('7zz', ['x', '-y', `-o${out}`, `-t${format}`, path])
  expect(code, stdout + stderr).toBe(0)
  const [name] = readdirSync(out)
  return hashOf(readFileSync(`${out}/${name}`))
}

const hashOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

test.each(['vhd', 'vhdx'] as const)(
  'I16, I33: a %s over one is written, rebased and committed, and reads the same throughout',
  async (format) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    for (const name of ['base', 'other']) await images.create(folder(name), { format, size: '6M' })
    await writeHere(images, folder('base'), format, ['write -P 0x11 1M 1M'])
    await writeHere(images, folder('other'), format, ['write -P 0x22 1M 64K', 'write -P 0x23 5M 64K'])
    const child = folder('child')
    await images.create(child, { format, backing: { path: 'base', format } })
    {
      await using disk = await images.open(child)
      await disk.write(700, Buffer.alloc(5000, 0x33))
      await disk.write(2 ** 20 + 100, Buffer.alloc(9, 0x34))
      await disk.zero(3 * MIB, 2 * MIB)
    }
    const before = await guestOf(images, child)
    expect(await guestOf7z(child, format)).toBe(before)
    expect(await images.rebase(child, { backing: 'other' })).toMatchObject({ backingFormat: format, to: 'other' })
    expect(await guestOf(images, child)).toBe(before)
    expect(await guestOf7z(child, format)).toBe(before)
    expect((await images.info(child)).backing).toMatchObject({ path: 'other', format, exists: true })
    expect(await images.check(child)).toMatchObject({ ok: true, leaks: 0 })
    const { bytesCommitted } = await images.commit(child)
    expect(bytesCommitted).toBeGreaterThan(0)
    expect(await guestOf(images, child)).toBe(before)
    // What was committed, QEMU reads.
    await qemuImg('convert', '-f', names[format], '-O', 'raw', folder('other'), folder('raw'))
    expect(hashOf(readFileSync(folder('raw')))).toBe(before)
    const dynamic = await rejection(images.rebase(folder('other'), { backing: 'base' }))
    expect(dynamic).toMatchObject({ code: 'UNSUPPORTED' })
    if (format === 'vhdx') {
      expect(await rejection(images.rebase(child, { backing: null }))).toMatchObject({ code: 'UNSUPPORTED' })
    } else {
      await images.rebase(child, { backing: null })
      expect((await images.info(child)).specific.subformat).toBe('dynamic')
      await requireReadHere(images, child, format)
    }
    expect(await guestOf(images, child)).toBe(before)
  },
)

test('I9: what a vhd or vhdx cannot be is refused by the name of the option, and nothing is created', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  await images.create(folder('base.vhd'), { format: 'vhd', size: '1M' })
  const refusals: [object, string, string][] = [
    [{ format: 'vhd', size: '1M', blockSize: '3M' }, 'INVALID_ARGUMENT', 'blockSize'],
    [{ format: 'vhd', size: '1M', blockSize: '256K' }, 'INVALID_ARGUMENT', 'blockSize'],
    [{ format: 'vhd', size: '1M', blockSize: 0 }, 'INVALID_ARGUMENT', 'blockSize'],
    [{ format: 'vhd', size: '1M', subformat: 'fixed', blockSize: '2M' }, 'INVALID_ARGUMENT', 'blockSize'],
    [{ format: 'vhd', size: '1M', subformat: 'sparse' }, 'INVALID_ARGUMENT', 'subformat'],
    [{ format: 'vhd', size: 2040 * GIB + 1 }, 'INVALID_ARGUMENT', 'size'],
    [{ format: 'vhd', size: 0, subformat: 'fixed' }, 'INVALID_ARGUMENT', 'size'],
    [{ format: 'vhd', size: '1M', logSize: '1M' }, 'INVALID_ARGUMENT', 'logSize'],
    [{ format: 'vhd', size: '1M', preallocation: 'off' }, 'INVALID_ARGUMENT', 'preallocation'],
    [{ format: 'vhd' }, 'INVALID_ARGUMENT', 'size'],
    [{ format: 'vhdx', size: 0 }, 'INVALID_ARGUMENT', 'size'],
    [{ format: 'vhdx', size: '65T' }, 'INVALID_ARGUMENT', 'size'],
    [{ format: 'vhdx', size: '1M', blockSize: '512M' }, 'INVALID_ARGUMENT', 'blockSize'],
    [{ format: 'vhdx', size: '64T', blockSize: '1M' }, 'INVALID_ARGUMENT', 'blockSize'],
    [{ format: 'vhdx', size: '1M', logSize: '1000K' }, 'INVALID_ARGUMENT', 'logSize'],
    [{ format: 'vhdx', size: '1M', logSize: '65M' }, 'INVALID_ARGUMENT', 'logSize'],
    [{ format: 'vhdx', backing: { path: 'a', format: 'vhdx' } }, 'IMAGE_NOT_FOUND', 'a'],
    [{ format: 'vhd', backing: { path: 'a', format: 'vhd' } }, 'IMAGE_NOT_FOUND', 'a'],
    [{ format: 'vhdx', backing: { path: 'base.vhd', format: 'vhd' } }, 'UNSUPPORTED', 'backing'],
    [{ format: 'vhd', backing: { path: 'base.vhd', format: 'raw' } }, 'UNSUPPORTED', 'backing'],
    [{ format: 'vhd', subformat: 'fixed', backing: { path: 'base.vhd', format: 'vhd' } }, 'UNSUPPORTED', 'backing'],
    [{ format: 'vhd', backing: { path: 'base.vhd' } }, 'INVALID_ARGUMENT', 'backing.format'],
  ]
  for (const [options, code, named] of refusals) {
    const error = await rejection(images.create(folder('image'), options as never))
    expect(error, JSON.stringify(options)).toMatchObject({ code, message: expect.stringContaining(named) })
  }
  expect(() => statSync(folder('image'))).toThrow()
})

test('what the formats cannot do is refused, and leaves the image as it is', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  for (const format of ['vhd', 'vhdx'] as const) {
    const path = folder(format)
    await images.create(path, { format, size: '4M' })
    const before = bytesOf(path)
    expect(await rejection(images.resize(path, '8M', { preallocation: 'full' }))).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('preallocation'),
    })
    expect(await rejection(images.rebase(path, { backing: null }))).toMatchObject({ code: 'UNSUPPORTED' })
    expect(await rejection(images.rebase(path, { backing: 'x', mode: 'unsafe', backingFormat: 'raw' }))).toMatchObject({
      code: 'UNSUPPORTED',
    })
    expect(await rejection(images.commit(path))).toMatchObject({ code: 'IMAGE_CHAIN' })
    expect(bytesOf(path)).toBe(before)
  }
})

test('I36: a damaged footer copy is told without writing, and mended when told to', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('image.vhd')
  await images.create(path, { format: 'vhd', size: '4M' })
  const sound = readFileSync(path)
  const damaged = Buffer.from(sound)
  damaged.fill(0x7f, 60, 64)
  writeFileSync(path, damaged)
  const report = await images.check(path)
  expect(report).toMatchObject({ ok: false, corruptions: 1, corruptionsFixed: 0 })
  expect(readFileSync(path).equals(damaged)).toBe(true)
  expect(await images.check(path, { repair: 'all' })).toMatchObject({ corruptionsFixed: 1 })
  expect(readFileSync(path).equals(sound)).toBe(true)
})

test('I44: a raw disk that ends in a footer is raw to who says so', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('image')
  await images.create(path, { format: 'vhd', subformat: 'fixed', size: '1M' })
  expect(await images.info(path)).toMatchObject({ format: 'vhd', virtualBytes: MIB })
  expect(await images.info(path, { format: 'raw' })).toMatchObject({ format: 'raw', virtualBytes: MIB + 512 })
})
