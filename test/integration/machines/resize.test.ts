// runtime.resize(box): the disk of a machine gets larger, while it runs and while it stands.
import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import type { Box } from '../../../lib/index.js'
import { eventually, runtimeOver } from '../../support/boxes.js'
import { BOOT, ORDERLY } from '../../support/machine.js'
import { rejection } from '../../support/producer.js'
import { qemuImg } from '../../support/qemu.js'

const MIB = 2 ** 20

/** What the guest's kernel has, in bytes: /proc/partitions counts kibibytes. */
async function sizeIn(box: Box): Promise<number> {
  const { stdout } = await box.shell("grep 'vda$' /proc/partitions", { check: true })
  return Number(stdout.trim().split(/\s+/)[2]) * 1024
}

/** Whether these MiB of the disk are zeros. */
async function isZero(box: Box, from: number, count: number): Promise<boolean> {
  const { stdout } = await box.shell(`dd if=/dev/vda bs=1M skip=${from} count=${count} 2>/dev/null | md5sum`)
  const zeros = createHash('md5').update(Buffer.alloc(count * MIB))
  return stdout.startsWith(zeros.digest('hex'))
}

test('I34, B36: the guest of a machine that runs sees its disk grow, with zeros; a restart keeps it, and a snapshot its own size', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'web' })
  const before = await sizeIn(box)
  await box.shell('echo mine > /mine; sync')
  await box.snapshot('small', { memory: true })
  const result = await runtime.resize(box, before + 64 * MIB)
  expect(result).toMatchObject({ from: before, to: before + 64 * MIB })
  // QEMU tells the guest, whose driver takes it up a moment later.
  await eventually(
    () => sizeIn(box),
    (size) => size === before + 64 * MIB,
    'the guest to see its disk grow',
  )
  expect(await isZero(box, before / MIB, 64)).toBe(true)
  await box.shell(`echo far | dd of=/dev/vda bs=1M seek=${before / MIB + 63} conv=notrunc && sync`, { check: true })
  for (const size of [before, before + 64 * MIB - 512])
    expect(await rejection(runtime.resize(box, size))).toMatchObject({ code: 'INVALID_ARGUMENT', argument: 'size' })
  const reason = new Error('not now')
  expect(await rejection(runtime.resize(box, '8G', { signal: AbortSignal.abort(reason) }))).toBe(reason)
  expect(await rejection(runtime.resize(box, '8G', { disk: '/dev/vdz' }))).toMatchObject({ argument: 'disk' })

  await box.stop(ORDERLY)
  const { diskPath } = await box.info()
  expect((await runtime.images.info(diskPath as string)).virtualBytes).toBe(before + 64 * MIB)
  await qemuImg('check', diskPath as string)
  await box.start(BOOT)
  expect(await sizeIn(box)).toBe(before + 64 * MIB)
  expect((await box.shell(`dd if=/dev/vda bs=1M skip=${before / MIB + 63} | head -c 3`)).stdout).toBe('far')

  await box.snapshots.restore('small')
  expect(await sizeIn(box)).toBe(before)
  await box.restart(ORDERLY)
  expect(await sizeIn(box)).toBe(before)
  expect((await box.run(['cat', '/mine'])).stdout).toBe('mine')
})

test('I34: the disk of a machine that stands grows by the image engine, also before its first start', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'web', start: false })
  const { diskPath } = await box.info()
  const { virtualBytes } = await runtime.images.info(diskPath as string, { shared: true })
  await runtime.resize(box, virtualBytes + 8 * MIB, { disk: '/dev/vda' })
  await box.start(BOOT)
  expect(await sizeIn(box)).toBe(virtualBytes + 8 * MIB)
  await box.stop(ORDERLY)
  expect(await runtime.resize(box, virtualBytes + 16 * MIB)).toMatchObject({ from: virtualBytes + 8 * MIB })
  expect(await rejection(runtime.resize(box, MIB))).toMatchObject({ code: 'INVALID_ARGUMENT', argument: 'size' })
  await qemuImg('check', diskPath as string)
  await box.start(BOOT)
  expect(await sizeIn(box)).toBe(virtualBytes + 16 * MIB)
  expect(await isZero(box, virtualBytes / MIB, 16)).toBe(true)
})

test('a box without a disk of its own, and what is no box, are refused', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create()
  expect(await rejection(runtime.resize(box, '8G'))).toMatchObject({ code: 'UNSUPPORTED', op: 'resize' })
  for (const size of [undefined, -1, 1.5, 'x'])
    expect(await rejection(runtime.resize(box, size as never))).toMatchObject({ argument: 'size' })
  expect(await rejection(runtime.resize('disk.qcow2' as never, '8G'))).toMatchObject({ argument: 'box' })
})
