// Machines that have just booted, kept by what they are made of: the next like box goes on from one, and nobody can tell.
import {
  copyFileSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import type { Box } from '../../../lib/index.js'
import { eventually, runtimeOver } from '../../support/boxes.js'
import { makeFolder } from '../../support/folder.js'
import { qemuOf } from '../../support/machine.js'
import { machineRoot } from '../../support/machine-root.js'
import { openRuntime } from '../../support/producer.js'
import { program } from '../../support/qemu.js'
import { descendantsOf, idsIn, keeperOf, processOf, type SeenProcess } from '../../support/traces.js'

const isQemu = ({ name }: SeenProcess) => name.startsWith('qemu-system')
const newFolder = () => join(makeFolder()('templates'), 'here')
const kept = (folder: string) => (existsSync(folder) ? readdirSync(folder).sort() : [])

/** Whether it went on from a memory, which its QEMU has mapped; else it booted. */
const wentOn = (box: Box) => readFileSync(`/proc/${qemuOf(box).pid}/maps`, 'utf8').includes('memfd:sluicebox-memory')

test('B24: the second like box goes on from the boot of the first, in another home too, and is another machine', async () => {
  const templates = newFolder()
  const boxes: Box[] = []
  for (const runtime of [runtimeOver('machine', { templates }), runtimeOver('machine', { templates })])
    boxes.push(await runtime.create(), await runtime.create())
  expect(boxes.map(wentOn)).toEqual([false, true, true, true])
  expect(kept(templates)).toHaveLength(1)
  const identity = 'cat /etc/machine-id; hostname; head -c 16 /dev/urandom | md5sum'
  const identities = await Promise.all(boxes.map(async (box) => (await box.shell(identity)).stdout))
  expect(new Set(identities).size).toBe(4)
  // Nobody can tell by its disk: it lies on the disk named, and nothing lies between.
  const { images } = openRuntime({ allowPaths: ['/'] })
  for (const box of boxes) {
    const diskPath = (await box.info()).diskPath as string
    const { backing } = await images.info(diskPath, { shared: true })
    expect(backing?.path).toBe(machineRoot())
    expect(readdirSync(dirname(diskPath)).filter((name) => name.includes('.qcow2'))).toEqual([basename(diskPath)])
  }
  // One that is made and started later goes on from there as well.
  const later = await runtimeOver('machine', { templates }).create({ start: false })
  await later.start()
  expect(wentOn(later)).toBe(true)
  // What one writes is its own, and is there when it boots again by itself.
  await boxes[1]?.shell('echo mine > /root/mine; sync', { check: true })
  await boxes[1]?.shell('test -s /root/mine', { check: true })
  expect((await boxes[2]?.shell('cat /root/mine'))?.exitCode).toBe(1)
})

test('B24: with a damaged template, or one of a base that is another now, the box boots, and leaves a new one', async () => {
  const folder = makeFolder()
  const templates = join(folder('templates'), 'here')
  const disk = folder('root.raw')
  copyFileSync(machineRoot(), disk)
  const rootfs = { disk, format: 'raw' } as const
  // Each has nothing in memory that another read before.
  const create = () => runtimeOver('machine', { templates }).create({ rootfs })
  expect(wentOn(await create())).toBe(false)
  expect(wentOn(await create())).toBe(true)
  for (const name of ['state', 'disk0.qcow2']) {
    const [key = ''] = kept(templates)
    writeSync(openSync(join(templates, key, name), 'r+'), 'damaged', 4096)
    expect(wentOn(await create())).toBe(false)
    expect(wentOn(await create())).toBe(true)
  }
  const now = new Date()
  utimesSync(disk, now, now)
  expect(wentOn(await create())).toBe(false)
  expect(kept(templates)).toHaveLength(2)
})

test('B24: with a template that QEMU cannot read, the box boots in the walls that it has', async () => {
  const templates = newFolder()
  const runtime = runtimeOver('machine', { templates })
  await runtime.create()
  const [key = ''] = kept(templates)
  await runtime.create({ memory: '160M' })
  const other = kept(templates).find((name) => name !== key) ?? ''
  // Whole by its digest, and of another machine.
  const record = (name: string) => JSON.parse(readFileSync(join(templates, name, 'template.json'), 'utf8'))
  copyFileSync(join(templates, other, 'state'), join(templates, key, 'state'))
  const mixed = { ...record(key), state: record(other).state }
  writeFileSync(join(templates, key, 'template.json'), JSON.stringify(mixed))
  const box = await runtimeOver('machine', { templates }).create()
  expect(wentOn(box)).toBe(false)
  expect((await box.run(['echo', 'runs'])).stdout).toBe('runs')
  // It is not tried again by that runtime. Another makes a new one.
  expect(kept(templates)).toEqual([other])
  const create = () => runtimeOver('machine', { templates }).create()
  expect(wentOn(await create())).toBe(false)
  expect(wentOn(await create())).toBe(true)
})

test('B24: a machine that hangs on its way out of a template is given up, and the box boots in the walls that it has', async () => {
  const templates = newFolder()
  await runtimeOver('machine', { templates }).create()
  const runtime = runtimeOver('machine', { templates })
  const creating = runtime.create()
  const hung = await eventually(
    () => {
      const keepers = idsIn(runtime.home).flatMap((id) => keeperOf(id) ?? [])
      return keepers.flatMap(({ pid }) => descendantsOf(pid)).find(isQemu)
    },
    (qemu) => qemu !== undefined,
    'a QEMU',
  )
  process.kill(hung?.pid as number, 'SIGSTOP')
  const box = await creating
  expect(wentOn(box)).toBe(false)
  expect((await box.run(['echo', 'runs'])).stdout).toBe('runs')
  expect(processOf(hung?.pid as number)?.start).not.toBe(hung?.start)
})

test('B24: a machine whose id cannot be changed boots, and is no template', async () => {
  const templates = newFolder()
  const folder = makeFolder()
  const disk = folder('root.raw')
  copyFileSync(machineRoot(), disk)
  // Not a file of its own, so that it stays as it is.
  const commands = folder('commands')
  writeFileSync(commands, 'symlink /etc/machine-id /etc/passwd\n')
  await program('debugfs', ['-w', '-f', commands, disk])
  const runtime = runtimeOver('machine', { templates })
  const box = await runtime.create({ rootfs: { disk, format: 'raw' } })
  expect((await box.run(['readlink', '/etc/machine-id'])).stdout).toBe('/etc/passwd')
  expect(kept(templates)).toEqual([])
})

test('B25: boxes made at once make one template, and templates: false makes none', async () => {
  const templates = newFolder()
  const runtimes = [runtimeOver('machine', { templates }), runtimeOver('machine', { templates })]
  const boxes = await Promise.all(runtimes.map((runtime) => runtime.create()))
  expect(boxes.map(wentOn)).toEqual([false, false])
  expect(kept(templates)).toHaveLength(1)
  const without = runtimeOver('machine', { templates: false })
  expect(wentOn(await without.create())).toBe(false)
  expect(kept(join(without.home, 'templates'))).toEqual([])
})
