// Block devices: a disk that is no file, read and written in place as one; qemu-img is the judge.
import { createHash } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { expect, onTestFinished, type TestContext, test } from 'vitest'
import { sluicebox } from '../../support/cli.js'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { program, qemuImg, qemuIo } from '../../support/qemu.js'

const MIB = 2 ** 20

/** A device over the file, until the test ends. */
async function deviceOver(file: string, skip: TestContext['skip']): Promise<string> {
  if (!existsSync('/dev/loop-control')) skip('no loop devices here: /dev/loop-control is missing')
  const { code, stdout, stderr } = await program('losetup', ['--find', '--show', file])
  if (code !== 0) skip(`no loop devices here: ${stderr.trim()}`)
  const device = stdout.trim()
  onTestFinished(async () => void (await program('losetup', ['--detach', device])))
  return device
}

/** As the device gives it, whatever the kernel keeps of the file. */
function sumOf(device: string, bytes: number): string {
  const all = Buffer.alloc(bytes)
  const fd = openSync(device, 'r')
  expect(readSync(fd, all, 0, bytes, 0)).toBe(bytes)
  closeSync(fd)
  return createHash('sha256').update(all).digest('hex')
}

async function makeSource(folder: (name?: string) => string): Promise<string> {
  await qemuImg('create', '-q', '-f', 'qcow2', folder('source.qcow2'), '6M')
  await qemuIo(folder('source.qcow2'), ['write -P 0x11 64k 300k', 'write -P 0x12 5M 1M', 'write -z 2M 1M'])
  await qemuImg('convert', '-O', 'raw', folder('source.qcow2'), folder('source.raw'))
  return folder('source.qcow2')
}

test('I35: a disk is converted onto a device, in place; what lies behind it stays', async ({ skip }) => {
  const folder = makeFolder()
  const { images } = openRuntime()
  const source = await makeSource(folder)
  await qemuImg('create', '-q', '-f', 'raw', folder('there'), '8M')
  await qemuIo(folder('there'), ['write -P 0x77 0 8M'], 'raw')
  const device = await deviceOver(folder('there'), skip)
  const expected = Buffer.concat([readFileSync(folder('source.raw')), Buffer.alloc(2 * MIB, 0x77)])
  const sum = createHash('sha256').update(expected).digest('hex')

  const refused = await rejection(images.convert(source, device, { format: 'raw', overwrite: true }))
  expect(refused).toMatchObject({ code: 'UNSUPPORTED', hint: expect.stringContaining('existing: true') })
  const made = await images.convert(source, device, { existing: true, format: 'raw' })
  expect(made).toMatchObject({ path: device, format: 'raw', virtualBytes: 8 * MIB })
  expect(sumOf(device, 8 * MIB)).toBe(sum)

  // As qemu-img takes one, without -n.
  await qemuIo(device, ['write -P 0x77 0 6M'], 'raw')
  expect(await sluicebox(folder(), 'image', 'convert', '-O', 'raw', source, device)).toMatchObject({ code: 0 })
  expect(sumOf(device, 8 * MIB)).toBe(sum)

  await qemuImg('create', '-q', '-f', 'raw', folder('large.raw'), '9M')
  expect(await rejection(images.convert(folder('large.raw'), device, { existing: true, format: 'raw' }))).toMatchObject(
    { code: 'IMAGE_TOO_SMALL' },
  )
  expect(sumOf(device, 8 * MIB)).toBe(sum)
})

test('a device is a source, is examined, compared, read and written, and does not change its size', async ({
  skip,
}) => {
  const folder = makeFolder()
  const { images } = openRuntime()
  const source = await makeSource(folder)
  const device = await deviceOver(folder('source.raw'), skip)
  expect(await images.info(device, { format: 'raw' })).toMatchObject({ format: 'raw', virtualBytes: 6 * MIB })
  expect(await images.compare(device, source, { formatA: 'raw' })).toMatchObject({ identical: true })
  await images.convert(device, folder('copy.qcow2'), { format: 'qcow2', sourceFormat: 'raw' })
  await qemuImg('compare', folder('copy.qcow2'), source)
  let end = 0
  for await (const { start, length } of images.map(device, { format: 'raw' })) {
    expect(start).toBe(end)
    end = start + length
  }
  expect(end).toBe(6 * MIB)
  {
    await using disk = await images.open(device, { format: 'raw' })
    expect(disk.size).toBe(6 * MIB)
    await disk.write(1000, Buffer.from('on the device'))
    await disk.zero(64 * 1024 + 1, 4096)
    await expect(disk.write(6 * MIB - 1, Buffer.alloc(2))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  }
  await qemuImg('convert', '-f', 'raw', '-O', 'raw', device, folder('after.raw'))
  const after = readFileSync(folder('after.raw'))
  const model = await readAll(images, folder('copy.qcow2'))
  model.write('on the device', 1000)
  model.fill(0, 64 * 1024 + 1, 64 * 1024 + 1 + 4096)
  expect(after.equals(model)).toBe(true)
  expect(await rejection(images.resize(device, '8M', { format: 'raw' }))).toMatchObject({ code: 'UNSUPPORTED' })
  expect(await rejection(images.create(device, { format: 'raw', size: '1M', overwrite: true }))).toMatchObject({
    code: 'UNSUPPORTED',
  })
})

test('a qcow2 image on a device grows over it, as far as that goes', async ({ skip }) => {
  const folder = makeFolder()
  const { images } = openRuntime()
  const source = await makeSource(folder)
  await qemuImg('create', '-q', '-f', 'raw', folder('there'), '10M')
  await qemuIo(folder('there'), ['write -P 0x77 0 10M'], 'raw')
  const device = await deviceOver(folder('there'), skip)
  for (const clusterSize of ['512', '64k']) {
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize}`, device, '6M')
    await images.convert(source, device, { existing: true })
    await qemuImg('compare', '-F', 'qcow2', source, device)
    await images.snapshots.create(device, 'kept')
    {
      await using disk = await images.open(device)
      await disk.write(0, Buffer.alloc(MIB, 0x55))
    }
    expect(await images.check(device)).toMatchObject({ ok: true })
    await qemuImg('check', '-q', '-f', 'qcow2', device)
    await images.snapshots.apply(device, 'kept')
    await images.snapshots.remove(device, 'kept')
    await qemuImg('compare', '-F', 'qcow2', source, device)
    expect(await images.check(device)).toMatchObject({ ok: true })
  }
  await qemuImg('create', '-q', '-f', 'raw', folder('full.raw'), '12M')
  await qemuIo(folder('full.raw'), ['write -P 1 0 12M'], 'raw')
  await qemuImg('create', '-q', '-f', 'qcow2', device, '12M')
  const full = images.convert(folder('full.raw'), device, { existing: true, sourceFormat: 'raw' })
  expect(await rejection(full)).toMatchObject({ code: 'NO_SPACE' })
  expect(await images.check(device)).toMatchObject({ corruptions: 0 })
  await qemuIo(device, ['read 0 12M'])
})

test('a qcow2 image on a device is resized, repaired, and committed into a file', async ({ skip }) => {
  const folder = makeFolder()
  const { images } = openRuntime()
  await qemuImg('create', '-q', '-f', 'qcow2', folder('base.qcow2'), '6M')
  await qemuImg('create', '-q', '-f', 'raw', folder('there'), '12M')
  const device = await deviceOver(folder('there'), skip)
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', folder('base.qcow2'), '-F', 'qcow2', device)
  await qemuIo(device, ['write -P 7 0 1M'])
  const runtime = openRuntime({ allowPaths: [folder(), '/dev'] })
  expect(await rejection(runtime.images.commit(device, { keepOverlay: false }))).toMatchObject({ code: 'UNSUPPORTED' })
  expect(await runtime.images.commit(device)).toMatchObject({ bytesCommitted: MIB })
  await qemuIo(folder('base.qcow2'), ['read -P 7 0 1M', 'read -P 0 1M 5M'])
  expect(await images.check(device)).toMatchObject({ ok: true, allocatedClusters: 0 })

  await qemuImg('create', '-q', '-f', 'qcow2', device, '6M')
  await qemuIo(device, ['write -P 7 0 1M'])
  expect(await images.resize(device, '8M')).toMatchObject({ virtualBytes: 8 * MIB })
  await qemuIo(device, ['read -P 7 0 1M', 'read -P 0 1M 7M'])
  expect(await images.resize(device, '1M', { shrink: true })).toMatchObject({ virtualBytes: MIB })
  await qemuImg('check', '-q', '-f', 'qcow2', device)

  // The refcount table's first entry leads nowhere.
  const fd = openSync(device, 'r+')
  writeSync(fd, Buffer.from([0, 0, 0, 0, 0, 0xff, 0, 0]), 0, 8, 65_536)
  fsyncSync(fd)
  closeSync(fd)
  expect(await images.check(device)).toMatchObject({ ok: false })
  expect(await images.check(device, { repair: 'all' })).toMatchObject({ corruptions: 0 })
  expect(await images.check(device)).toMatchObject({ ok: true })
  await qemuImg('check', '-q', '-f', 'qcow2', device)
  await qemuIo(device, ['read -P 7 0 1M'])
})

async function readAll(images: ReturnType<typeof openRuntime>['images'], path: string): Promise<Buffer> {
  await using disk = await images.open(path, { readonly: true })
  return await disk.read(0, disk.size)
}
