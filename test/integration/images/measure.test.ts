// images.measure: qemu-img's numbers.
import { expect, test } from 'vitest'
import type { MeasureResult, MeasureTarget } from '../../../lib/index.js'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { qemuImg, qemuIo } from '../../support/qemu.js'
import { variedDisks } from '../../support/varied-disks.js'

async function qemuMeasure(...args: string[]): Promise<MeasureResult> {
  const sizes = JSON.parse(await qemuImg('measure', '--output=json', ...args)) as Record<string, number>
  const { required = -1, 'fully-allocated': fullyAllocated = -1, bitmaps } = sizes
  const ours = { requiredBytes: required, fullyAllocatedBytes: fullyAllocated }
  return bitmaps === undefined ? ours : { ...ours, bitmapsBytes: bitmaps }
}

test.each(variedDisks)('the sizes of %s converted are those of qemu-img', async (_, make) => {
  const { images } = openRuntime()
  const { path, format } = await make(makeFolder())
  for (const target of ['qcow2', 'raw'] as const) {
    const expected = await qemuMeasure('-f', format, '-O', target, path)
    expect(await images.measure({ source: path, format: target })).toEqual(expected)
    expect(await images.measure({ source: path, sourceFormat: format, format: target })).toEqual(expected)
  }
})

test.each([0, 1, 511, 512, 65_535, 65_536, 2 ** 30 - 1, 2 ** 30, 10 * 2 ** 30 + 12_345, 2 ** 40, 2 ** 50])(
  'a disk of %d bytes is measured as qemu-img does',
  async (size) => {
    const { images } = openRuntime()
    for (const format of ['qcow2', 'raw'] as const)
      expect(await images.measure({ size, format })).toEqual(await qemuMeasure('--size', String(size), '-O', format))
  },
)

test.each<[string, Partial<MeasureTarget>]>([
  ['cluster_size=512', { clusterSize: 512 }],
  ['cluster_size=2M', { clusterSize: '2M' }],
  ['refcount_bits=1', { refcountBits: 1 }],
  ['refcount_bits=64,cluster_size=4k', { refcountBits: 64, clusterSize: '4K' }],
  ['compat=0.10', { compat: '0.10' }],
  ['extended_l2=on,cluster_size=128k', { extendedL2: true, clusterSize: '128K' }],
  ['lazy_refcounts=on,compression_type=zstd', { lazyRefcounts: true, compression: 'zstd' }],
  ['preallocation=metadata', { preallocation: 'metadata' }],
  ['preallocation=falloc', { preallocation: 'falloc' }],
  ['preallocation=full', { preallocation: 'full' }],
  ['backing_file=/nowhere', { backing: { path: '/nowhere', format: 'raw' } }],
])('a file of the shape %s is measured as qemu-img does', async (said, shape) => {
  const { images } = openRuntime()
  const path = makeFolder()('source.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '100M')
  await qemuIo(path, ['write -P 1 0 70000', 'write -P 2 5000000 512', 'write -P 3 104857088 512'])
  const options = { ...shape, format: 'qcow2' } as const
  expect(await images.measure({ ...options, source: path })).toEqual(
    await qemuMeasure('-O', 'qcow2', '-o', said, '-f', 'qcow2', path),
  )
  expect(await images.measure({ ...options, size: 12_345_678 })).toEqual(
    await qemuMeasure('-O', 'qcow2', '-o', said, '--size', '12345678'),
  )
})

test('an internal snapshot is measured as it was', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('source.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '10M')
  await qemuIo(path, ['write -P 1 0 1M'])
  await qemuImg('snapshot', '-c', 'before', path)
  await qemuIo(path, ['write -P 2 4M 2M'])
  const sizes = await images.measure({ source: path, snapshot: 'before', format: 'qcow2' })
  expect(sizes).toEqual(await qemuMeasure('-O', 'qcow2', '-l', 'before', path))
  expect(sizes.requiredBytes).toBeLessThan((await images.measure({ source: path, format: 'qcow2' })).requiredBytes)
  expect(await rejection(images.measure({ source: path, snapshot: 'none', format: 'qcow2' }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
  })
})

test('what bitmaps would take is told', async () => {
  const { images } = openRuntime()
  const path = makeFolder()('source.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '100M')
  await qemuImg('bitmap', '--add', path, 'first')
  await qemuImg('bitmap', '--add', '-g', '512', '--disable', path, 'a name of some length')
  const same = async (options: Partial<MeasureTarget>, ...args: string[]) => {
    const sizes = await images.measure({ ...options, source: path, format: 'qcow2' })
    expect(sizes).toEqual(await qemuMeasure('-O', 'qcow2', ...args, path))
    return sizes.bitmapsBytes
  }
  expect(await same({})).toBe(5 * 65_536)
  await same({ clusterSize: 512 }, '-o', 'cluster_size=512')
  expect(await same({ compat: '0.10' }, '-o', 'compat=0.10')).toBeUndefined()
  expect(await images.measure({ source: path, format: 'raw' })).toEqual(await qemuMeasure('-O', 'raw', path))
})

test('what was measured is what a conversion takes, at most', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  for (const [, make] of variedDisks.slice(0, 2)) {
    const { path } = await make(folder)
    const { requiredBytes } = await images.measure({ source: path, format: 'qcow2' })
    const { allocatedBytes } = await images.convert(path, folder('out.qcow2'), { format: 'qcow2', overwrite: true })
    expect(allocatedBytes).toBeLessThanOrEqual(requiredBytes)
  }
})

test('bad options and sources are refused by name', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const refused = async (options: object, argument: string) =>
    expect(await rejection(images.measure(options as never))).toMatchObject({ code: 'INVALID_ARGUMENT', argument })
  await refused({ size: 1 }, 'format')
  await refused({ format: 'raw' }, 'source')
  await refused({ format: 'raw', source: folder('x'), size: 1 }, 'size')
  await refused({ format: 'raw', size: 1, sourceFormat: 'raw' }, 'sourceFormat')
  await refused({ format: 'raw', size: 1, snapshot: 'x' }, 'snapshot')
  await refused({ format: 'raw', size: 1, clusterSize: 1 }, 'clusterSize')
  await refused({ format: 'raw', size: 1, overwrite: true }, 'overwrite')
  expect(await rejection(images.measure({ format: 'qcow2', size: 1, clusterSize: 3000 }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
  })
  expect(await rejection(images.measure({ format: 'vmdk', size: 1 } as never))).toMatchObject({ code: 'UNSUPPORTED' })
  expect(await rejection(images.measure({ format: 'raw', source: folder('gone') }))).toMatchObject({
    code: 'IMAGE_NOT_FOUND',
    op: 'images.measure',
  })
  expect(await rejection(images.measure({ format: 'qcow2', size: 2 ** 53 - 1 }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
  })
})
