// Kill points: the owner of a machine, its keeper or its QEMU dies at some moment of each operation; the next open finds
// everything that was promised, and nothing else.
import { copyFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { eventually } from '../support/boxes.js'
import { startModule } from '../support/child.js'
import { makeFolder } from '../support/folder.js'
import { asMachine, BOOT, needMachines, qemuOf } from '../support/machine.js'
import { machineRoot } from '../support/machine-root.js'
import { openRuntime } from '../support/producer.js'
import { idsIn, keeperOf, leftOf, traceOf } from '../support/traces.js'

const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? Date.now() % 1_000_000)
let state = SEED >>> 0
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}

/** One turn of each operation, with the victim among what takes part in it. */
const operations = {
  create: `await (await runtime.create({ ...machine, name: 'other' + n })).remove({ force: true })`,
  remove: `await (await runtime.create({ ...machine, name: 'other' + n, start: false })).remove()`,
  snapshot: `await box.snapshot('more', { memory: n % 2 === 0 }); await box.snapshots.remove('more')`,
  clone: `await (await box.clone({ from: 'kept', name: 'other' + n })).remove({ force: true })`,
  restore: `await box.snapshots.restore('kept')`,
  rebase: `await runtime.rebase(box, { backing: [process.env.TEST_OTHER, machine.rootfs.disk][n % 2], backingFormat: 'raw' })`,
} as const

const owner = (turn: string) => `
  const runtime = new Runtime({ home: process.env.TEST_HOME }).ref()
  const machine = ${JSON.stringify(asMachine())}
  const box = await runtime.create({ ...machine, name: 'web' })
  box.on('error', () => {})
  await box.shell('mkdir -p /data; echo bytes > /data/file; sync', { check: true })
  await box.snapshot('kept', { memory: true })
  console.log(box.id)
  await lines.next()
  try {
    for (let n = 0; ; n++) { ${turn} }
  } catch {
    // The box is lost, which the parent sees to.
  }
  await runtime.close()
`

const names = Object.keys(operations) as (keyof typeof operations)[]
test.each(names)(
  'B3, B7, B13: a crash in the midst of %s leaves a home that opens with all that was promised',
  async (name) => {
    needMachines()
    const folder = makeFolder()
    copyFileSync(machineRoot(), folder('other.raw'))
    const home = folder('home')
    const child = startModule(owner(operations[name]), { TEST_HOME: home, TEST_OTHER: folder('other.raw') })
    const id = await child.line()
    const trace = traceOf(id)
    const victims = { owner: child.pid, keeper: trace.keeper.pid, QEMU: qemuOf({ id }).pid }
    const chosen = (['owner', 'keeper', 'QEMU'] as const)[Math.floor(random() * 3)] ?? 'owner'
    const why = `seed ${SEED}: ${chosen} in ${name}`
    // What a restore replaces is seen by now.
    child.tell('go')
    // When in the operation is what the test is about.
    await new Promise((resolve) => setTimeout(resolve, random() * 2500))
    try {
      process.kill(victims[chosen], 'SIGKILL')
    } catch {
      // A restore has replaced it meanwhile.
      process.kill(child.pid, 'SIGKILL')
    }
    await eventually(
      () => {
        // The victim was on its way out, and the restore goes on.
        if ((keeperOf(id)?.pid ?? trace.keeper.pid) !== trace.keeper.pid) child.kill()
        return leftOf(trace).filter((line) => line.startsWith('process'))
      },
      (left) => left.length === 0,
      `${why}: its processes to be gone`,
    )
    child.kill()
    await child.ended
    const runtime = openRuntime({ home })
    const box = await eventually(
      async () => (await runtime.list({ name: 'web' }))[0],
      (found) => found?.state === 'stopped',
      `${why}: the box to be stopped`,
    ).then(() => runtime.get('web'))
    expect((await box.snapshots.list())[0], why).toMatchObject({ name: 'kept', memory: true })
    const { diskPath } = await box.info()
    expect(await runtime.images.check(diskPath as string), why).toMatchObject({ corruptions: 0 })
    await box.start(BOOT)
    expect((await box.run(['cat', '/data/file'])).stdout, why).toBe('bytes')
    const clone = await box.clone({ from: 'kept' })
    expect((await clone.run(['cat', '/data/file'])).stdout, why).toBe('bytes')
    await clone.remove({ force: true })
    for (const each of await runtime.list()) await runtime.remove(each.id, { force: true })
    expect(idsIn(home), why).toEqual([])
  },
)
