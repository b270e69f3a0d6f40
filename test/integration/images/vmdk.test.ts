// vmdk through a Runtime, with qemu-img and libvmdk beside it as the oracles.
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { expect, test } from 'vitest'
import type { ImageCreateOptions } from '../../../lib/index.js'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { guestHash, program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'

type VmdkOptions = Omit<Extract<ImageCreateOptions, { format: 'vmdk' }>, 'format'>
const subformats = [
  'monolithicSparse',
  'monolithicFlat',
  'twoGbMaxExtentSparse',
  'twoGbMaxExtentFlat',
  'streamOptimized',
] as const

/** Every option that `qemu-img create -f vmdk -o help` lists stands in one of these two tables. */
const cases: Record<string, [VmdkOptions, string][]> = {
  subformat: subformats.map((subformat) => [{ subformat }, `subformat=${subformat}`]),
  adapter_type: (['ide', 'lsilogic', 'buslogic'] as const).map((adapter) => [{ adapter }, `adapter_type=${adapter}`]),
  size: [
    [{ size: 512 }, 'size=512'],
    [{ size: '5G' }, 'size=5G'],
    [{ size: '5G', subformat: 'twoGbMaxExtentSparse' }, 'size=5G,subformat=twoGbMaxExtentSparse'],
    [{ size: '5G', subformat: 'twoGbMaxExtentFlat' }, 'size=5G,subformat=twoGbMaxExtentFlat'],
    [{ size: 12345 * 512 }, `size=${12345 * 512}`],
  ],
}
const reasons: Record<string, string> = {
  backing_file: 'a case of its own: overlays',
  backing_fmt: 'a case of its own: overlays',
  compat6: 'a number in the text that nothing here reads',
  hwversion: 'a number in the text that nothing here reads',
  toolsversion: 'a number in the text that nothing here reads',
  zeroed_grain: 'read and kept, and written where an image has it; not created',
}

test('each option of qemu-img for vmdk is compared, or there is a reason why not', async () => {
  const help = await qemuImg('create', '-f', 'vmdk', '-o', 'help')
  const listed = [...help.matchAll(/^ {2}(\w+)=</gm)].map(([, name]) => name)
  expect(listed.length).toBeGreaterThan(5)
  expect([...Object.keys(cases), ...Object.keys(reasons)].sort()).toEqual(listed.sort())
})

/** The descriptor without what is drawn at random, and without blank lines. */
function descriptorOf(path: string): string {
  const bytes = readFileSync(path)
  const text = bytes.subarray(0, 4).toString() === 'KDMV' ? bytes.subarray(512, 21 * 512) : bytes
  return text
    .toString('latin1')
    .replace(/\0.*/s, '')
    .replace(/^CID=.*$/m, 'CID=')
    .replace(/\n\n+/g, '\n')
}

const ownOnly = ({ specific, virtualBytes, clusterBytes }: Record<string, unknown>) => {
  const { cid, extents, ...rest } = specific as { cid: number; extents: { filename: string }[] }
  expect(cid).toBeGreaterThan(0)
  const parts = extents.map(({ filename, ...part }) => ({ ...part, filename: filename.replace(/^.*\//, '') }))
  return { ...rest, extents: parts, virtualBytes, clusterBytes }
}

test.each(Object.values(cases).flat())('I6: %j is the image that qemu-img makes with %s', async (options, theirs) => {
  const { images } = openRuntime()
  const [ours, other] = [makeFolder(), makeFolder()]
  const made = await images.create(ours('disk.vmdk'), { format: 'vmdk', size: '1M', ...options } as ImageCreateOptions)
  const size = theirs.startsWith('size=') ? [] : ['1M']
  await qemuImg('create', '-q', '-f', 'vmdk', '-o', theirs, other('disk.vmdk'), ...size)
  expect(readdirSync(ours()).sort()).toEqual(readdirSync(other()).sort())
  expect(descriptorOf(ours('disk.vmdk'))).toBe(descriptorOf(other('disk.vmdk')))
  // Each side reads both the same.
  const seen = await qemuInfo(ours('disk.vmdk'))
  expect(seen['virtual-size']).toBe(made.virtualBytes)
  expect(seen['cluster-size']).toBe(made.clusterBytes)
  const data = (seen['format-specific'] as { data: Record<string, unknown> }).data
  expect(made.specific).toEqual(data)
  expect(await images.info(ours('disk.vmdk'))).toEqual(made)
  expect(ownOnly({ ...(await images.info(other('disk.vmdk'))) })).toEqual(ownOnly({ ...made }))
  for (const folder of [ours, other]) {
    expect((await program('qemu-img', ['check', folder('disk.vmdk')])).code).toBe(0)
    expect(await images.check(folder('disk.vmdk'))).toMatchObject({ ok: true, problems: [] })
  }
})

test.each(subformats)('I6: libvmdk knows a %s vmdk of ours, and its size', async (subformat) => {
  const { images } = openRuntime()
  const path = makeFolder()('disk.vmdk')
  const { virtualBytes } = await images.create(path, { format: 'vmdk', size: '5G', subformat })
  const { code, stdout, stderr } = await program('vmdkinfo', [path])
  expect(code, stderr).toBe(0)
  expect(stdout).toContain(`(${virtualBytes} bytes)`)
})

test.each([4096, 8192, '32K', '64K'] as const)('I6: a grain of %s is the one that qemu-img sees', async (grainSize) => {
  const { images } = openRuntime()
  const path = makeFolder()('disk.vmdk')
  const made = await images.create(path, { format: 'vmdk', size: '40M', grainSize })
  expect((await qemuInfo(path))['cluster-size']).toBe(made.clusterBytes)
  await qemuIo(path, ['write -P 7 1M 1M', 'write -P 9 39M 64K'], 'vmdk')
  expect(await images.check(path)).toMatchObject({ ok: true })
})

test.each(subformats.slice(0, 4))(
  'I16: what QEMU writes to a %s vmdk of ours is what is copied from it',
  async (subformat) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    await images.create(folder('base.vmdk'), { format: 'vmdk', size: '8M', subformat })
    await qemuIo(folder('base.vmdk'), ['write -P 7 1M 1M', 'write -P 9 7M 64K'], 'vmdk')
    expect(await images.check(folder('base.vmdk'))).toMatchObject({ ok: true })
    await images.create(folder('top.qcow2'), { format: 'qcow2', backing: { path: 'base.vmdk', format: 'vmdk' } })
    await qemuIo(folder('top.qcow2'), ['write -P 3 2M 64K'])
    const guest = await guestHash(folder('top.qcow2'))
    await images.rebase(folder('top.qcow2'), { backing: null })
    expect(await guestHash(folder('top.qcow2'))).toBe(guest)
    // And the reverse: what is committed into a vmdk, QEMU reads.
    await images.rebase(folder('top.qcow2'), { backing: 'base.vmdk', backingFormat: 'vmdk' })
    await images.commit(folder('top.qcow2'))
    expect(await guestHash(folder('base.vmdk'))).toBe(guest)
    expect((await program('qemu-img', ['check', folder('base.vmdk')])).code).toBe(0)
  },
)

test('I20: overlays of vmdk over vmdk, by qemu-img and by us, are read the same by both', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  await qemuImg('create', '-q', '-f', 'vmdk', folder('base.vmdk'), '4M')
  await qemuIo(folder('base.vmdk'), ['write -P 5 0 2M'], 'vmdk')
  await images.create(folder('ours.vmdk'), { format: 'vmdk', backing: { path: 'base.vmdk', format: 'vmdk' } })
  await qemuImg('create', '-q', '-f', 'vmdk', '-b', folder('base.vmdk'), '-F', 'vmdk', folder('theirs.vmdk'))
  const base = await qemuInfo(folder('base.vmdk'))
  const { cid } = (base['format-specific'] as { data: { cid: number } }).data
  for (const name of ['ours.vmdk', 'theirs.vmdk']) {
    await qemuIo(folder(name), ['read -P 5 0 2M', 'write -P 6 1M 64K', 'read -P 5 1088K 64K'], 'vmdk')
    const info = await images.info(folder(name), { chain: true })
    expect(info.backing).toMatchObject({ format: 'vmdk', exists: true, resolvedPath: folder('base.vmdk') })
    expect(info.specific['parent-cid']).toBe(cid)
    expect(info.chain?.map(({ format }) => format)).toEqual(['vmdk', 'vmdk'])
  }
  expect(await guestHash(folder('ours.vmdk'))).toBe(await guestHash(folder('theirs.vmdk')))
})

test('I16, I33: a vmdk overlay is rebased and committed, and qemu-img reads the same throughout', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  for (const name of ['old.vmdk', 'new.vmdk']) await qemuImg('create', '-q', '-f', 'vmdk', folder(name), '4M')
  await qemuIo(folder('old.vmdk'), ['write -P 5 0 2M'], 'vmdk')
  await qemuIo(folder('new.vmdk'), ['write -P 5 0 1M', 'write -P 8 3M 64K'], 'vmdk')
  await images.create(folder('top.vmdk'), { format: 'vmdk', backing: { path: 'old.vmdk', format: 'vmdk' } })
  await qemuIo(folder('top.vmdk'), ['write -P 6 512K 64K'], 'vmdk')
  const guest = await guestHash(folder('top.vmdk'))
  const old = bytesOf(folder('old.vmdk'))
  const result = await images.rebase(folder('top.vmdk'), { backing: 'new.vmdk' })
  expect(result).toMatchObject({ from: 'old.vmdk', to: 'new.vmdk', backingFormat: 'vmdk', format: 'vmdk' })
  expect(await guestHash(folder('top.vmdk'))).toBe(guest)
  expect(bytesOf(folder('old.vmdk'))).toBe(old)
  await images.commit(folder('top.vmdk'))
  expect(await guestHash(folder('new.vmdk'))).toBe(guest)
  expect(await guestHash(folder('top.vmdk'))).toBe(guest)
  for (const name of ['top.vmdk', 'new.vmdk']) expect(await images.check(folder(name))).toMatchObject({ ok: true })
  // A backing that was written since its overlay knew it.
  await qemuIo(folder('new.vmdk'), ['write -P 1 0 64K'], 'vmdk')
  expect(await rejection(images.info(folder('top.vmdk'), { chain: true }))).toMatchObject({ code: 'IMAGE_CHAIN' })
})

test('I36: check counts a damaged grain table without writing, and brings it back from the redundant one', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('disk.vmdk')
  await images.create(path, { format: 'vmdk', size: '4M' })
  await qemuIo(path, ['write -P 7 0 1M'], 'vmdk')
  const guest = await guestHash(path)
  const bytes = readFileSync(path)
  const table = bytes.readUInt32LE(Number(bytes.readBigUInt64LE(56)) * 512) * 512
  bytes.writeUInt32LE(0xfffffff0, table)
  writeFileSync(path, bytes)
  const damaged = bytesOf(path)
  expect(await images.check(path)).toMatchObject({ ok: false, corruptions: 2 })
  expect(bytesOf(path)).toBe(damaged)
  expect(await images.check(path, { repair: 'all' })).toMatchObject({
    ok: true,
    corruptionsFixed: 1,
  })
  expect(await guestHash(path)).toBe(guest)
})

test('I43: a flat extent that names a file of the host is refused, by every operation, and discloses nothing', async () => {
  const { images } = openRuntime()
  const [folder, elsewhere] = [makeFolder(), makeFolder()]
  writeFileSync(elsewhere('secret'), 'S'.repeat(4096))
  symlinkSync(elsewhere('secret'), folder('link'))
  const text = (name: string) =>
    `# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "${name}" 0\n`
  for (const name of ['link', elsewhere('secret'), '/etc/passwd', 'json:{}']) {
    writeFileSync(folder('disk.vmdk'), text(name))
    for (const call of [
      () => images.info(folder('disk.vmdk')),
      () => images.check(folder('disk.vmdk')),
      () => images.create(folder('q'), { format: 'qcow2', backing: { path: 'disk.vmdk', format: 'vmdk' } }),
    ] as (() => Promise<unknown>)[])
      expect(await rejection(call())).toMatchObject({ code: 'PERMISSION' })
  }
  expect(readdirSync(folder()).sort()).toEqual(['disk.vmdk', 'link'])
})

test('I9: options that a vmdk cannot have are refused by name', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const create = (options: object) => images.create(folder('a'), { format: 'vmdk', size: '1M', ...options } as never)
  for (const [options, word] of [
    [{ grainSize: 512 }, 'grainSize'],
    [{ grainSize: '128K' }, 'grainSize'],
    [{ subformat: 'vmfs' }, 'subformat'],
    [{ adapter: 'sata' }, 'adapter'],
    [{ preallocation: 'full' }, 'preallocation'],
    [{ clusterSize: 65536 }, 'clusterSize'],
    [{ size: 0 }, 'size'],
  ] as const)
    expect(await rejection(create(options))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining(word),
    })
  expect(await rejection(images.resize(folder('a'), '2M'))).toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  await create({})
  expect(await rejection(images.resize(folder('a'), '2M'))).toMatchObject({ code: 'UNSUPPORTED' })
  expect(readdirSync(folder())).toEqual(['a'])
})

test('streamOptimized images of qemu-img are read, and written by nobody', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  writeFileSync(folder('raw'), '')
  const fd = openSync(folder('raw'), 'r+')
  writeSync(fd, Buffer.alloc(300_000, 'guest'), 0, 300_000, 2 ** 20)
  closeSync(fd)
  await qemuImg(
    'convert',
    '-f',
    'raw',
    '-O',
    'vmdk',
    '-o',
    'subformat=streamOptimized',
    folder('raw'),
    folder('s.vmdk'),
  )
  await images.create(folder('top.qcow2'), { format: 'qcow2', backing: { path: 's.vmdk', format: 'vmdk' } })
  const guest = await guestHash(folder('top.qcow2'))
  await images.rebase(folder('top.qcow2'), { backing: null })
  expect(await guestHash(folder('top.qcow2'))).toBe(guest)
  expect(await images.check(folder('s.vmdk'))).toMatchObject({ ok: true, corruptions: 0 })
  await images.create(folder('o.qcow2'), { format: 'qcow2', backing: { path: 's.vmdk', format: 'vmdk' } })
  expect(await rejection(images.commit(folder('o.qcow2')))).toMatchObject({ code: 'UNSUPPORTED' })
  expect(statSync(folder('s.vmdk')).size).toBeLessThan(2 ** 20)
})
