// images.map: qemu-img's answers, in portions, with nothing held in between.
import { expect, test } from 'vitest'
import type { MapExtent } from '../../../lib/image-types.js'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { holdInQemu, qemuImg, qemuIo } from '../../support/qemu.js'
import { variedDisks } from '../../support/varied-disks.js'

/** Without what only one side tells: whether it is compressed, which file it is in. */
async function qemuMap(path: string, format: string, ...more: string[]): Promise<MapExtent[]> {
  const extents = JSON.parse(await qemuImg('map', '--output=json', '-f', format, ...more, path)) as MapExtent[]
  return extents.map(({ start, length, depth, present, zero, data, offset }) => ({
    ...{ start, length, depth, present, zero, data },
    ...(offset !== undefined && { offset }),
  }))
}

async function all(extents: AsyncIterable<MapExtent>): Promise<MapExtent[]> {
  const list: MapExtent[] = []
  for await (const extent of extents) list.push(extent)
  return list
}

test.each(variedDisks)('I52: the map of %s is what qemu-img says', async (_, make) => {
  const { images } = openRuntime()
  const { path, format } = await make(makeFolder())
  expect(await all(images.map(path, { format }))).toEqual(await qemuMap(path, format))
  expect(await all(images.map(path))).toEqual(await qemuMap(path, format))
})

test('I52: a part of the disk is mapped as qemu-img maps it, and past the end there is nothing', async () => {
  const { images } = openRuntime()
  const [, make] = variedDisks[1] as (typeof variedDisks)[number]
  const { path } = await make(makeFolder())
  for (const [start, length] of [
    [512, 64 * 1024],
    [100 * 1024, 2 ** 21],
    [2 ** 21, 2 ** 30],
  ] as const) {
    const expected = await qemuMap(path, 'qcow2', '-s', String(start), '-l', String(length))
    expect(await all(images.map(path, { start, length }))).toEqual(expected)
  }
  expect(await all(images.map(path, { start: 2 ** 40 }))).toEqual([])
  expect(await all(images.map(path, { length: 0 }))).toEqual([])
})

test('I52: thousands of extents come in portions that fit together, and each portion is an operation of its own', async () => {
  const runtime = openRuntime()
  const path = makeFolder()('many.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4K', path, '64M')
  await qemuIo(
    path,
    Array.from({ length: 4000 }, (_, n) => `write -q -P ${(n % 200) + 16} ${n * 16}K 4K`),
  )
  let operations = 0
  runtime.on('image', ({ type, op }) => {
    if (type === 'finished' && op === 'map') operations++
  })
  const extents = await all(runtime.images.map(path))
  expect(extents.length).toBeGreaterThan(7000)
  expect(extents).toEqual(await qemuMap(path, 'qcow2'))
  expect(operations).toBeGreaterThan(1)
})

test('an iterator that nobody reads on holds no lock, and ends when it is left', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('disk.qcow2')
  await images.create(path, { format: 'qcow2', size: '1M' })
  const iterator = images.map(path)[Symbol.asyncIterator]()
  expect((await iterator.next()).value).toMatchObject({ start: 0, length: 2 ** 20, present: false, zero: true })
  await qemuIo(path, ['write -P 1 0 64K'])
  expect(await iterator.next()).toEqual({ done: true, value: undefined })
  for await (const _ of images.map(path)) break
  await qemuIo(path, ['write -P 2 0 64K'])
})

test('what is wrong with the arguments is told by the call; a lock, a signal and a missing file by the first extent', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  expect(() => images.map('')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  expect(() => images.map(folder('x'), { start: -1 })).toThrow(expect.objectContaining({ argument: 'start' }))
  expect(() => images.map(folder('x'), { length: 1.5 })).toThrow(expect.objectContaining({ argument: 'length' }))
  expect(() => images.map(folder('x'), { depth: 1 } as object)).toThrow(expect.objectContaining({ argument: 'depth' }))
  expect(await rejection(all(images.map(folder('gone'))))).toMatchObject({ code: 'IMAGE_NOT_FOUND', op: 'images.map' })
  const path = folder('disk.qcow2')
  await images.create(path, { format: 'qcow2', size: '1M' })
  const reason = new Error('not now')
  expect(await rejection(all(images.map(path, { signal: AbortSignal.abort(reason) })))).toBe(reason)
  const holder = await holdInQemu(path)
  expect(await rejection(all(images.map(path)))).toMatchObject({ code: 'IMAGE_LOCKED', path })
  await holder.release()
})
