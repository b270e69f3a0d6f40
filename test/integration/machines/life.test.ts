// The life of a virtual machine: what it is made from, how it ends by itself, by us, by others; and what stays of it.
import { appendFileSync, copyFileSync, existsSync, readdirSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Box, BoxLostError, BoxStartError } from '../../../lib/index.js'
import { eventually, runtimeOver, soon } from '../../support/boxes.js'
import { hashOf, makeFolder } from '../../support/folder.js'
import { BOOT, ORDERLY, qemuOf } from '../../support/machine.js'
import { machineRoot } from '../../support/machine-root.js'
import { rejection } from '../../support/producer.js'
import { qemuImg } from '../../support/qemu.js'
import { makeRootfs } from '../../support/rootfs.js'
import { gone, keeperOf, traceOf } from '../../support/traces.js'

const statesOf = (box: Box): string[] => {
  const seen: string[] = []
  box.on('state', (state, previous) => seen.push(`${previous}>${state}`))
  return seen
}

test('B35, B36: a machine runs on an overlay of its own; info() tells what it is, and the named file never changes', async () => {
  const runtime = runtimeOver('machine')
  const before = await hashOf(machineRoot())
  const box = await runtime.create()
  const info = await box.info()
  expect(info).toMatchObject({
    isolation: 'vm',
    accel: 'tcg',
    state: 'running',
    rootfs: { disk: machineRoot(), format: 'raw', mode: 'overlay' },
    disks: [{ path: machineRoot(), device: '/dev/vda', overlayPath: info.diskPath }],
  })
  expect((await box.run(['uname', '-r'])).stdout).toMatch(/^6\./)
  expect((await box.run(['hostname'])).stdout).toBe(box.id.slice(0, 12))
  await box.shell('echo written > /tmp/f; sync')
  expect(await runtime.images.check(info.diskPath as string).catch((error) => error.code)).toBe('IMAGE_LOCKED')
  expect((await qemuImg('info', info.diskPath as string).catch((error) => error.message)) as string).toMatch(/lock/)
  const trace = traceOf(box.id)
  await box.remove({ force: true })
  await gone(trace, runtime.home)
  expect(await hashOf(machineRoot())).toBe(before)
})

test('B14, B15: stop() syncs and turns off; a named machine keeps its bytes, and its disk is free once it has stopped', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'web' })
  const seen = statesOf(box)
  await box.shell('echo kept > /root-file')
  expect(await soon(box.stop(ORDERLY), 'the stop')).toBe('requested')
  const { diskPath } = await box.info()
  expect(await runtime.images.check(diskPath as string)).toMatchObject({ ok: true })
  await box.start(BOOT)
  expect((await box.run(['cat', '/root-file'])).stdout).toBe('kept')
  expect(await box.stop({ force: true })).toBe('killed')
  expect(seen).toEqual([
    'running>stopping',
    'stopping>stopped',
    'stopped>starting',
    'starting>running',
    'running>stopping',
    'stopping>stopped',
  ])
})

test('a guest that turns itself off has stopped, by its own will', async () => {
  const runtime = runtimeOver('machine')
  // The first boots, and the others go on from there: in those the agent often still writes when its port is gone.
  for (const name of ['first', 'second', 'third']) {
    const box = await runtime.create({ name })
    const stopped = new Promise((resolve, reject) => {
      box.once('stopped', resolve)
      box.once('error', (error) => reject(new Error(`${error.message}\n${(error as BoxLostError).consoleTail}`)))
    })
    // Nothing bounds what the agent may take of the processor, which the kernel needs to turn the machine off.
    await box.run(['sh', '-c', 'echo -1 > /proc/sys/kernel/sched_rt_runtime_us'])
    // Told to only once it was spawned, or the machine may be gone before it can say so.
    const off = await box.exec(['sh', '-c', 'read word; echo o > /proc/sysrq-trigger'], { stdin: 'pipe' })
    // It may have ended in time, or be lost with its machine.
    off.wait().catch(() => {})
    await off.stdin.write('off\n').catch(() => {})
    expect(await soon(stopped, 'its end')).toBe('guest-shutdown')
    expect(box.state).toBe('stopped')
  }
})

test('B17: a guest whose kernel dies has failed, and the error has the end of its console', async () => {
  const box = await runtimeOver('machine').create({ name: 'web' })
  const failed = new Promise<BoxLostError>((resolve) => box.once('error', (error) => resolve(error as BoxLostError)))
  const crash = await box.exec(['sh', '-c', 'read word; echo c > /proc/sysrq-trigger'], { stdin: 'pipe' })
  const lost = rejection(crash.wait())
  await crash.stdin.write('crash\n').catch(() => {})
  expect(await soon(lost, 'the execution')).toMatchObject({ code: 'EXEC_LOST' })
  const error = await soon(failed, 'the failure')
  expect(error).toMatchObject({ code: 'BOX_LOST', boxId: box.id })
  expect(error.consoleTail).toMatch(/sysrq triggered crash/)
  await box.start(BOOT)
  expect((await box.run(['echo', 'again'])).stdout).toBe('again')
})

test.each(['SIGKILL', 'SIGSTOP'] as const)(
  'B17, B27: a QEMU that gets %s from outside fails its box in time, and nothing stays',
  async (signal) => {
    const runtime = runtimeOver('machine')
    const box = await runtime.create()
    const seen = statesOf(box)
    const lost = rejection((await box.exec(['sleep', '1000'])).wait())
    const trace = traceOf(box.id)
    process.kill(qemuOf(box).pid, signal)
    expect(await soon(lost, 'the execution to be lost')).toMatchObject({ code: 'EXEC_LOST' })
    await eventually(
      () => box.state,
      (state) => state === 'failed',
      'the box to fail',
    )
    expect(seen[0]).toBe('running>failed')
    await gone(trace, runtime.home)
  },
)

test('B3: a disk without a file system is BOX_START in its phase, with the console; start() may be tried again', async () => {
  const path = makeFolder()('empty.raw')
  writeFileSync(path, '')
  truncateSync(path, 16 * 2 ** 20)
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'web', start: false, rootfs: { disk: path, format: 'raw' } })
  for (let attempt = 0; attempt < 2; attempt++) {
    const error = (await rejection(box.start(BOOT))) as BoxStartError
    expect(error).toMatchObject({ code: 'BOX_START', phase: 'agent', boxId: box.id })
    expect(error.consoleTail).not.toBe('')
    expect(keeperOf(box.id)).toBe(undefined)
  }
})

test('B41: a base that changed under an overlay is IMAGE_CHAIN at the next start, naming the file', async () => {
  const base = makeFolder()('base.raw')
  copyFileSync(machineRoot(), base)
  const box = await runtimeOver('machine').create({ name: 'web', start: false, rootfs: { disk: base, format: 'raw' } })
  utimesSync(base, new Date(0), new Date(0))
  expect(await rejection(box.start())).toMatchObject({ code: 'IMAGE_CHAIN', path: base })
  appendFileSync(base, Buffer.alloc(512))
  expect(await rejection(box.start())).toMatchObject({ code: 'IMAGE_CHAIN', path: base })
})

test('X55: pause() halts the guest and loses nothing, for longer than a silent agent is borne; resume() goes on where it was', async () => {
  const box = await runtimeOver('machine').create()
  const seen = statesOf(box)
  const clock = await box.exec(['sh', '-c', 'n=0; while :; do echo $((n = n + 1)); sleep 0.1; done'])
  let ticks = 0
  let said = ''
  clock.on('stdout', (chunk) => {
    ticks++
    said += chunk
  })
  await eventually(
    () => ticks,
    (count) => count > 2,
    'the first ticks',
  )
  await box.pause()
  expect(box.state).toBe('paused')
  expect(await rejection(box.run(['true']))).toMatchObject({ code: 'BOX_STATE' })
  // What was on its way when the processors stopped is here once nothing comes any more.
  let before = -1
  for (let looks = 0; before !== ticks && looks < 30; looks++) {
    before = ticks
    await new Promise((resolve) => setTimeout(resolve, 2000))
  }
  await new Promise((resolve) => setTimeout(resolve, 11_000))
  expect(ticks).toBe(before)
  await box.pause()
  await box.resume()
  await eventually(
    () => ticks,
    (count) => count > before + 2,
    'it to go on',
  )
  const numbers = said.trim().split('\n').map(Number)
  expect(numbers).toEqual(numbers.map((_, index) => index + 1))
  await box.pause()
  expect(await soon(box.stop(ORDERLY), 'the stop of a paused machine')).toBe('requested')
  expect(seen.slice(0, 2)).toEqual(['running>paused', 'paused>running'])
})

test('what a machine cannot be made from is refused before anything is made', async () => {
  const runtime = runtimeOver('passed')
  const create = (options: object) => rejection(runtime.create({ isolation: 'vm', ...options }))
  expect(await create({ rootfs: null })).toMatchObject({ argument: 'rootfs' })
  expect(await create({ rootfs: { directory: '/none' } })).toMatchObject({ path: '/none' })
  expect(await create({ rootfs: { disk: '/none.raw' } })).toMatchObject({ code: 'IMAGE_NOT_FOUND', path: '/none.raw' })
  expect(await create({ rootfs: { disk: machineRoot(), mode: 'any' } })).toMatchObject({ argument: 'rootfs.mode' })
  expect(await create({ rootfs: { disk: machineRoot() }, memory: Infinity })).toMatchObject({ argument: 'memory' })
  expect(await create({ rootfs: { disk: machineRoot() }, disks: {} })).toMatchObject({ argument: 'disks' })
  expect(await rejection(runtime.create({ rootfs: { disk: machineRoot() } }))).toMatchObject({
    argument: 'rootfs.disk',
  })
  expect(await rejection(runtime.create({ disks: [] }))).toMatchObject({ argument: 'disks' })
  expect(await runtime.list()).toEqual([])
  const box = await runtime.create()
  expect(await rejection(box.pause())).toMatchObject({ code: 'UNSUPPORTED' })
  expect(await rejection(runtime.rebase(box, { backing: machineRoot() }))).toMatchObject({ code: 'UNSUPPORTED' })
})

test('a directory is copied to a disk of the box: what the guest writes stays there, and the directory is as it was', async () => {
  const directory = makeFolder()('root')
  await makeRootfs(directory, ['sh', 'cat', 'ls', 'rm', 'sync'])
  writeFileSync(join(directory, 'etc/motd'), 'from the host\n')
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ isolation: 'vm', name: 'web', rootfs: { directory }, ...BOOT })
  expect((await box.run(['cat', '/etc/motd'])).stdout).toBe('from the host')
  expect(await box.info()).toMatchObject({ isolation: 'vm', rootfs: { directory }, disks: [{ device: '/dev/vda' }] })
  await box.shell('echo mine > /etc/mine; rm /etc/motd')
  await box.stop(ORDERLY)
  expect(readdirSync(join(directory, 'etc')).sort()).toEqual(['group', 'motd', 'passwd'])
  await runtime.create({ isolation: 'vm', name: 'web', rootfs: { directory }, ifExists: 'reuse', ...BOOT })
  expect((await box.run(['ls', '/etc'])).stdout).toMatch(/^group\n(.*\n)*mine\npasswd$/)
  const small = { isolation: 'vm', rootfs: { directory }, storage: '1M' } as const
  expect(await rejection(runtime.create(small))).toMatchObject({ code: 'NO_SPACE' })
  expect((await runtime.list()).length).toBe(1)
})

test('more disks are /dev/vdb and on; mode direct writes the file itself, readonly none', async () => {
  const folder = makeFolder()
  for (const name of ['b.raw', 'c.raw']) {
    writeFileSync(folder(name), '')
    truncateSync(folder(name), 2 ** 20)
  }
  const box = await runtimeOver('machine').create({
    disks: [
      { path: folder('b.raw'), format: 'raw', mode: 'direct' },
      { path: folder('c.raw'), format: 'raw', mode: 'readonly' },
    ],
  })
  const { disks } = await box.info()
  expect(disks.map(({ device, overlayPath }) => [device, overlayPath === null])).toEqual([
    ['/dev/vda', false],
    ['/dev/vdb', true],
    ['/dev/vdc', true],
  ])
  expect((await box.shell('printf direct | dd of=/dev/vdb conv=fsync 2>/dev/null')).exitCode).toBe(0)
  expect((await box.shell('printf never | dd of=/dev/vdc conv=fsync')).exitCode).not.toBe(0)
  await box.stop(ORDERLY)
  expect((await hashOf(folder('b.raw'))) === (await hashOf(folder('c.raw')))).toBe(false)
  expect(existsSync(folder('c.raw'))).toBe(true)
})
