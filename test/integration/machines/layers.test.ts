// The layers that snapshots leave under a machine's disk: they are merged, and nobody's bytes change by it.
import { readdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { expect, test } from 'vitest'
import type { Box } from '../../../lib/index.js'
import { runtimeOver } from '../../support/boxes.js'
import { makeFolder } from '../../support/folder.js'
import { BOOT, ORDERLY } from '../../support/machine.js'
import { qemuImg } from '../../support/qemu.js'

const text = async (box: Box, script: string) => (await box.shell(script, { check: true })).stdout.trim()

const diskOf = async (box: Box) => (await box.info()).diskPath as string

/** The files that the box's disk is made of, beside its base. */
const layersOf = async (box: Box) => readdirSync(dirname(await diskOf(box))).filter((name) => name.endsWith('.qcow2'))

const write = (box: Box, name: string, mib: number) =>
  text(box, `head -c ${mib}000000 /dev/urandom > /root/${name}; sync; md5sum < /root/${name}`)

const sums = (box: Box) => text(box, 'cd /root; for f in one two; do md5sum < $f; done')

test('B22, I25: the layer of a snapshot that is removed from a box that stands is merged, the smaller into the larger', async () => {
  const runtime = runtimeOver('machine')
  for (const [below, above] of [
    [9, 1],
    [1, 9],
  ] as const) {
    const box = await runtime.create({ name: `box-${below}` })
    const first = await write(box, 'one', below)
    await box.snapshot('s')
    const second = await write(box, 'two', above)
    await box.stop(ORDERLY)
    expect(await layersOf(box)).toHaveLength(2)
    await box.snapshots.remove('s')
    const disk = await diskOf(box)
    expect(await layersOf(box)).toEqual([disk.slice(dirname(disk).length + 1)])
    await qemuImg('check', disk)
    await box.start(BOOT)
    expect(await sums(box)).toBe(`${first}\n${second}`)
    await box.remove({ force: true })
  }
})

test('B22: a layer that a clone or another snapshot lies on is merged for the box alone', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'source' })
  const first = await write(box, 'one', 5)
  await box.snapshot('older')
  const clone = await box.clone({ from: 'older', name: 'clone' })
  const second = await write(box, 'two', 1)
  await box.snapshot('newer')
  await text(box, 'echo last > /root/three')
  await box.stop(ORDERLY)
  await box.snapshots.remove('newer')
  // The older one's layer, and above it what came since.
  expect(await layersOf(box)).toHaveLength(2)
  const again = await box.clone({ from: 'older' })
  expect(await text(again, 'md5sum < /root/one; ls /root')).toBe(`${first}\none`)
  await again.remove({ force: true })
  await box.snapshots.remove('older')
  expect(await layersOf(box)).toHaveLength(1)
  await clone.restart(ORDERLY)
  expect(await text(clone, 'md5sum < /root/one; ls /root')).toBe(`${first}\none`)
  await box.start(BOOT)
  expect(await sums(box)).toBe(`${first}\n${second}`)
  expect(await text(box, 'cat /root/three')).toBe('last')
})

test('B36: a box that runs and is looked at again and again keeps a few layers, and all that it wrote', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'source' })
  const lines: number[] = []
  for (let round = 0; round < 40; round++) {
    await text(box, `echo ${round} >> /root/log; sync`)
    lines.push(round)
    const { name } = await box.snapshot()
    await box.snapshots.remove(name)
    expect((await layersOf(box)).length).toBeLessThan(20)
  }
  const fromDisk = 'echo 3 > /proc/sys/vm/drop_caches; cat /root/log'
  expect(await text(box, fromDisk)).toBe(lines.join('\n'))
  const clone = await box.clone({ memory: true })
  expect(await text(clone, fromDisk)).toBe(lines.join('\n'))
  await box.restart(ORDERLY)
  expect(await text(box, fromDisk)).toBe(lines.join('\n'))
})

test('B36: a snapshot and a move of a box that stands, asked for at once, come one after the other', async () => {
  const folder = makeFolder()
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'source' })
  const first = await write(box, 'one', 1)
  await box.stop(ORDERLY)
  const { rootfs } = await box.info()
  const base = (rootfs as { disk: string }).disk
  await runtime.images.create(folder('other.qcow2'), { format: 'qcow2', backing: { path: base, format: 'raw' } })
  for (const [round, backing] of [folder('other.qcow2'), base, folder('other.qcow2')].entries()) {
    await Promise.all([
      box.snapshot(`s${round}`),
      runtime.rebase(box, { backing, backingFormat: backing === base ? 'raw' : 'qcow2' }),
    ])
  }
  await box.start(BOOT)
  expect(await text(box, 'md5sum < /root/one')).toBe(first)
  const clone = await box.clone({ from: 's0' })
  expect(await text(clone, 'md5sum < /root/one')).toBe(first)
})
