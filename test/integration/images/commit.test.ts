// images.commit: the base gets what the overlay had, and whoever reads through the overlay reads the same.
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { guestHash, holdInQemu, program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'

const MIB = 2 ** 20

/** base.raw ← middle.qcow2 ← top.qcow2, each with something of its own. */
async function chainOfThree(folder: (name?: string) => string): Promise<string> {
  const base = Buffer.alloc(6 * MIB)
  for (let i = 0; i < base.length; i += 4096) base.writeUInt32LE(i, i)
  writeFileSync(folder('base.raw'), base)
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', folder('middle.qcow2'))
  await qemuIo(folder('middle.qcow2'), ['write -P 0x21 1M 1M', 'write -z 3M 256K'])
  const top = folder('top.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'middle.qcow2', '-F', 'qcow2', '-o', 'cluster_size=4K', top)
  await qemuIo(top, ['write -P 0x31 1536K 64K', 'write -c -P 0x32 5M 64K', 'write -z 128K 8K'])
  return top
}

test('I33: an overlay is committed into its backing, stays, and holds nothing any more', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const top = await chainOfThree(folder)
  const guest = await guestHash(top)
  const base = bytesOf(folder('base.raw'))
  const phases = new Set<string>()
  const result = await images.commit(top, { onProgress: ({ phase }) => phases.add(phase) })
  expect(result.bytesCommitted).toBe(64 * 1024 + 64 * 1024 + 8 * 1024)
  expect(result.durationMs).toBeGreaterThan(0)
  expect([...phases]).toContain('empty')
  expect(await guestHash(top)).toBe(guest)
  expect(await guestHash(folder('middle.qcow2'))).toBe(guest)
  expect(bytesOf(folder('base.raw'))).toBe(base)
  await qemuImg('compare', top, folder('middle.qcow2'))
  for (const image of [top, folder('middle.qcow2')]) expect((await program('qemu-img', ['check', image])).code).toBe(0)
  expect(await images.commit(top)).toMatchObject({ bytesCommitted: 0 })
})

test('I33: into a file further down it takes the data between along, and the overlay stands on that file then', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const top = await chainOfThree(folder)
  const guest = await guestHash(top)
  await images.commit(top, { into: 'base.raw' })
  expect(await guestHash(top)).toBe(guest)
  expect(await qemuInfo(top)).toMatchObject({ 'backing-filename': 'base.raw', 'backing-filename-format': 'raw' })
  await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', top, folder('base.raw'))
  expect((await program('qemu-img', ['check', top])).code).toBe(0)
})

test('I33: keepOverlay: false removes the file of the overlay, once the base has all', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const top = await chainOfThree(folder)
  const guest = await guestHash(top)
  await images.commit(top, { keepOverlay: false })
  expect(existsSync(top)).toBe(false)
  expect(await guestHash(folder('middle.qcow2'))).toBe(guest)
})

test.each(['raw', 'qcow2'] as const)(
  'I33: a smaller %s base grows, and what it gains reads as the overlay',
  async (format) => {
    const { images } = openRuntime()
    const folder = makeFolder()
    const top = folder('top')
    await qemuImg('create', '-q', '-f', format, folder('base'), '1M')
    await qemuIo(folder('base'), ['write -P 0x11 0 1M'], format)
    await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', format, top, '5M')
    await qemuIo(top, ['write -P 0x31 960K 128K', 'write -P 0x32 4M 64K'])
    const guest = await guestHash(top)
    await images.commit(top)
    expect((await images.info(folder('base'), { format })).virtualBytes).toBe(5 * MIB)
    expect(await guestHash(top)).toBe(guest)
    await qemuImg('compare', '-s', '-f', 'qcow2', '-F', format, top, folder('base'))
  },
)

test('I33: a base that cannot grow is IMAGE_TOO_SMALL; no backing, a stranger, snapshots and raw are refused as well', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', folder('base'), '1M')
  await qemuImg('snapshot', '-c', 'one', folder('base'))
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', folder('top'), '2M')
  await images.create(folder('stranger'), { format: 'qcow2', size: '4M' })
  await images.create(folder('flat.raw'), { format: 'raw', size: '4M' })
  const before = ['base', 'top', 'stranger'].map((name) => bytesOf(folder(name)))
  expect(await rejection(images.commit(folder('top')))).toMatchObject({ code: 'IMAGE_TOO_SMALL', path: folder('base') })
  expect(await rejection(images.commit(folder('top'), { into: 'stranger' }))).toMatchObject({ code: 'IMAGE_CHAIN' })
  expect(await rejection(images.commit(folder('base')))).toMatchObject({ code: 'IMAGE_CHAIN' })
  expect(await rejection(images.commit(folder('flat.raw')))).toMatchObject({ code: 'UNSUPPORTED' })
  expect(['base', 'top', 'stranger'].map((name) => bytesOf(folder(name)))).toEqual(before)
})

test('I39: neither the overlay nor its base may be in use, by a reader of the base neither', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const top = await chainOfThree(folder)
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'middle.qcow2', '-F', 'qcow2', folder('other.qcow2'))
  const holder = await holdInQemu(folder('other.qcow2'))
  const size = statSync(top).size
  expect(await rejection(images.commit(top))).toMatchObject({ code: 'IMAGE_LOCKED', path: folder('middle.qcow2') })
  expect(statSync(top).size).toBe(size)
  await holder.release()
  expect(await images.commit(top)).toMatchObject({ bytesCommitted: 136 * 1024 })
})

test('I53: a commit that is aborted in its midst leaves an overlay that reads as before', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const top = folder('top')
  await qemuImg('create', '-q', '-f', 'raw', folder('base'), '256M')
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', top)
  await qemuIo(top, ['write -P 0x31 0 192M'])
  const before = bytesOf(top)
  const abort = new AbortController()
  const reason = new Error('enough')
  const outcome = await rejection(
    images.commit(top, { signal: abort.signal, onProgress: ({ phase }) => phase === 'copy' && abort.abort(reason) }),
  )
  expect(outcome).toBe(reason)
  expect(bytesOf(top)).toBe(before)
  await reads(top)
  expect(await images.commit(top)).toMatchObject({ bytesCommitted: 192 * MIB })
  await reads(top)

  async function reads(path: string): Promise<void> {
    await qemuIo(path, ['read -P 0x31 0 192M', 'read -P 0 192M 64M'])
  }
})
