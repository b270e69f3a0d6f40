// images.measure: qemu-img's numbers.
import { expect, test } from 'vitest'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { qemuImg } from '../../support/qemu.js'
import { variedDisks } from '../../support/varied-disks.js'

async function qemuMeasure(...args: string[]): Promise<{ requiredBytes: number; fullyAllocatedBytes: number }> {
  const sizes = JSON.parse(await qemuImg('measure', '--output=json', ...args)) as Record<string, number>
  return { requiredBytes: sizes.required as number, fullyAllocatedBytes: sizes['fully-allocated'] as number }
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
  await refused({ format: 'raw', size: 1, clusterSize: 1 }, 'clusterSize')
  expect(await rejection(images.measure({ format: 'raw', source: folder('gone') }))).toMatchObject({
    code: 'IMAGE_NOT_FOUND',
    op: 'images.measure',
  })
  expect(await rejection(images.measure({ format: 'qcow2', size: 2 ** 53 - 1 }))).toMatchObject({
    code: 'INVALID_ARGUMENT',
  })
})
