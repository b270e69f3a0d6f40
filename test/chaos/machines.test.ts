// The leash of a machine: whichever of the processes that hold it is killed, nothing of it is left but what was to be kept.
import { describe, expect, test } from 'vitest'
import { eventually, runtimeOver } from '../support/boxes.js'
import { startModule } from '../support/child.js'
import { makeFolder } from '../support/folder.js'
import { asMachine, BOOT, needMachines, qemuOf } from '../support/machine.js'
import { openRuntime } from '../support/producer.js'
import { cgroupsNamed, gone, idsIn, leftOf, traceOf } from '../support/traces.js'

const victims = ['owner', 'keeper', 'first', 'qemu'] as const

/** An owner with one machine, which it reports the end of. */
const owner = (name: string | undefined) => `
  const runtime = new Runtime({ home: process.env.TEST_HOME }).ref()
  const box = await runtime.create(${JSON.stringify({ ...asMachine(), name })})
  box.on('error', (error) => console.log(box.state, error.code))
  await box.shell('mkdir -p /data; echo bytes > /data/file; sync', { check: true })
  const flood = await box.exec(['sh', '-c', 'while :; do echo x; seq 1 1000 > /data/more; done'])
  flood.on('stdout', () => {})
  flood.on('error', () => {})
  await flood.waitForLine('x')
  console.log(box.id)
`

describe.each(victims)('%s', (victim) => {
  test('S22, B9, B17, B43: SIGKILL for it leaves nothing of a machine', async () => {
    needMachines()
    const home = makeFolder()('home')
    const child = startModule(owner(undefined), { TEST_HOME: home })
    const id = await child.line()
    const trace = traceOf(id)
    expect(trace.processes.length).toBe(3)
    process.kill(
      { owner: child.pid, keeper: trace.keeper.pid, first: trace.first.pid, qemu: qemuOf({ id }).pid }[victim],
      'SIGKILL',
    )
    // The owner lives, is told, and keeps nothing either.
    if (victim !== 'owner') expect(await child.line()).toBe('failed BOX_LOST')
    await gone(trace)
    await gone(trace, home)
    expect(cgroupsNamed(id)).toEqual([])
    expect(idsIn(home)).toEqual([])
  })

  test('B9, B14, B43: SIGKILL for it leaves a named machine its disk, which is sound, and it starts again', async () => {
    needMachines()
    const home = makeFolder()('home')
    const child = startModule(owner('web'), { TEST_HOME: home })
    const id = await child.line()
    const trace = traceOf(id)
    process.kill(
      { owner: child.pid, keeper: trace.keeper.pid, first: trace.first.pid, qemu: qemuOf({ id }).pid }[victim],
      'SIGKILL',
    )
    if (victim !== 'owner') {
      expect(await child.line()).toBe('failed BOX_LOST')
      child.kill()
    }
    await child.ended
    await eventually(
      () => leftOf(trace).filter((line) => line.startsWith('process')),
      (left) => left.length === 0,
      'its processes to be gone',
    )
    const runtime = openRuntime({ home })
    const [found] = await runtime.list()
    expect(found).toMatchObject({ id, name: 'web', state: 'stopped' })
    expect(leftOf(trace)).toEqual([])
    const box = await runtime.get('web')
    const { diskPath } = await box.info()
    // What was cut off may have left clusters that nobody uses; none that two do, or that is lost.
    expect(await runtime.images.check(diskPath as string)).toMatchObject({ corruptions: 0 })
    await box.start(BOOT)
    expect((await box.run(['cat', '/data/file'])).stdout).toBe('bytes')
    await box.remove({ force: true })
    await gone({ id }, home)
  })
})

test('S18: hogs of memory and of processes end within the machine, whose agent answers on', async () => {
  const box = await runtimeOver('machine').create({ memory: '128M', maxProcesses: 64 })
  const hogs = await Promise.all(Array.from({ length: 2 }, () => box.run(['tail', '/dev/zero'])))
  expect(hogs.map(({ signal }) => signal)).toEqual(['SIGKILL', 'SIGKILL'])
  const bomb = await box.exec(['sh', '-c', 'b() { b | b & }; b; exec sleep 1000'], { stderr: 'ignore' })
  bomb.on('error', () => {})
  const begun = performance.now()
  // Longer than a silent agent is borne. At the limit of processes it says that there is none to be had.
  while (performance.now() - begun < 12_000) {
    const answer = await box.run(['true'], { timeoutMs: 2000 }).catch((error) => error)
    if (answer instanceof Error) expect(['EXEC_SPAWN', 'EXEC_TIMEOUT']).toContain((answer as { code?: string }).code)
  }
  expect(box.state).toBe('running')
})
