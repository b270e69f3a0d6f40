// images.snapshots: what the disk was, kept inside the image.
import { expect, test } from 'vitest'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { guestHash, holdInQemu, qemuImg, qemuIo } from '../../support/qemu.js'

test('I30: a snapshot keeps what the disk was; applied, it is that again', async () => {
  const path = makeFolder()('a.qcow2')
  const { images } = openRuntime()
  await images.create(path, { format: 'qcow2', size: '64M' })
  await qemuIo(path, ['write -P 1 0 10M'])
  const first = await guestHash(path)
  await images.snapshots.create(path, 'first')
  await qemuIo(path, ['write -P 2 5M 10M'])
  const second = await guestHash(path)
  await images.snapshots.create(path, 'second')
  expect((await images.snapshots.list(path)).map(({ id, name }) => `${id} ${name}`)).toEqual(['1 first', '2 second'])
  await images.snapshots.apply(path, 'first')
  expect(await guestHash(path)).toBe(first)
  await images.snapshots.apply(path, '2')
  expect(await guestHash(path)).toBe(second)
  await images.snapshots.remove(path, 'first')
  await images.snapshots.remove(path, 'second')
  expect(await images.snapshots.list(path)).toEqual([])
  expect(await guestHash(path)).toBe(second)
  expect(await images.check(path)).toMatchObject({ corruptions: 0, leaks: 0 })
  await qemuImg('check', '-q', path)
})

test('snapshots that cannot be are refused, with what and why', async () => {
  const folder = makeFolder()
  const path = folder('a.qcow2')
  const { images } = openRuntime()
  await images.create(path, { format: 'qcow2', size: '1M' })
  await images.create(folder('plain'), { format: 'raw', size: '1M' })
  await images.snapshots.create(path, 'here')
  expect(await rejection(images.snapshots.create(path, 'here'))).toMatchObject({ code: 'SNAPSHOT_EXISTS', path })
  for (const op of [images.snapshots.apply, images.snapshots.remove])
    expect(await rejection(op(path, 'gone'))).toMatchObject({ code: 'SNAPSHOT_NOT_FOUND', path })
  expect(await rejection(images.snapshots.create(folder('plain'), 'none'))).toMatchObject({ code: 'UNSUPPORTED' })
  expect(await rejection(images.snapshots.create(path, ''))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  const reason = new Error('not now')
  expect(await rejection(images.snapshots.create(path, 'late', { signal: AbortSignal.abort(reason) }))).toBe(reason)
  const held = await holdInQemu(path)
  expect(await rejection(images.snapshots.create(path, 'late'))).toMatchObject({ code: 'IMAGE_LOCKED' })
  await held.release()
})
