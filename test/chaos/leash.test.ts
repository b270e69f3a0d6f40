// The leash: whichever of the processes that hold a box is killed, at whatever moment, nothing of the box is left.
import { mkdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { eventually, streams } from '../support/boxes.js'
import { startModule } from '../support/child.js'
import { makeFolder } from '../support/folder.js'
import { openRuntime, seeded, until } from '../support/producer.js'
import { allProcesses, cgroupsNamed, descendantsOf, gone, idsIn, isSpare, leftOf, traceOf } from '../support/traces.js'

const victims = ['owner', 'keeper', 'first'] as const
const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? Date.now() % 1_000_000)

/** What the box does when the blow falls. Its processes bear the mark in their environment. */
const works = {
  idle: '',
  'a flood that is read': `
    const flood = await box.exec(['sh', '-c', 'yes & yes >&2 & while :; do /bin/echo x; done'])
    flood.on('stdout', () => {})
    flood.on('stderr', () => {})
    flood.on('error', () => {})
    await flood.waitForLine('y')`,
  'a flood that nobody reads': `
    process.removeAllListeners('warning')
    await Promise.all(Array.from({ length: 3 }, () => box.exec(['sh', '-c', 'yes'])))
    await box.run(['true'])`,
  'processes that ignore signals and left their session': `
    const script = "trap '' TERM HUP INT; echo ready; while :; do sleep 0.1; done"
    const stubborn = await box.exec(['sh', '-c', 'setsid sh -c "$0" & wait', script])
    await stubborn.waitForLine('ready')
    await box.exec(['sleep', '1000'], { tty: true, stdin: 'pipe' })`,
} as const

/** An owner with one box, which it reports the end of. */
const owner = (work: string, name: string | undefined, mark: string) => `
  const runtime = new Runtime({ home: process.env.TEST_HOME }).ref()
  const box = await runtime.create({ name: ${JSON.stringify(name)}, env: { TEST_MARK: '${mark}' } })
  box.on('error', (error) => console.log(box.state, error.code))
  ${work}
  console.log(box.id)
`

const newMark = () => `mark-${process.pid}-${Math.random().toString(36).slice(2)}`

describe.each(streams)('%s', (transport) => {
  const table = victims.flatMap((victim) =>
    (Object.keys(works) as (keyof typeof works)[]).map((work) => [victim, work] as const),
  )
  test.each(table)('S22, B9, B43: SIGKILL for the %s during %s leaves nothing of the box', async (victim, work) => {
    const home = makeFolder()('home')
    const mark = newMark()
    const child = startModule(owner(works[work], undefined, mark), {
      TEST_HOME: home,
      SLUICEBOX_TRANSPORT: transport,
    })
    const id = await child.line()
    const trace = traceOf(id, mark)
    expect(leftOf(trace, home).length).toBeGreaterThanOrEqual(3)
    process.kill(victim === 'owner' ? child.pid : trace[victim].pid, 'SIGKILL')
    // The owner lives, is told, and keeps nothing either.
    if (victim !== 'owner') expect(await child.line()).toBe('failed BOX_LOST')
    await gone({ ...trace, id, mark: undefined })
    await gone(trace, home)
    expect(cgroupsNamed(id)).toEqual([])
    expect(idsIn(home)).toEqual([])
  })
})

test.each(victims)(
  'B9: SIGKILL for the %s of a named box leaves its record and its bytes, and nothing that runs',
  async (victim) => {
    const home = makeFolder()('home')
    const mark = newMark()
    const work = `await box.shell('mkdir /data; echo bytes > /data/file; sync', { check: true }); await box.exec(['sleep', '1000'])`
    const child = startModule(owner(work, 'web', mark), { TEST_HOME: home })
    const id = await child.line()
    const trace = traceOf(id, mark)
    process.kill(victim === 'owner' ? child.pid : trace[victim].pid, 'SIGKILL')
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
    const next = startModule(
      `const runtime = new Runtime({ home: process.env.TEST_HOME }).ref()
     const found = (await runtime.list()).map(({ id, state }) => id + ' ' + state)
     console.log(found.join(','))
     await lines.next()
     const box = await runtime.get('web')
     await box.start()
     console.log((await box.shell('cat /data/file')).stdout)
     await runtime.close()
     process.exit()`,
      { TEST_HOME: home },
    )
    expect(await next.line()).toBe(`${id} stopped`)
    expect(leftOf(trace)).toEqual([])
    next.tell('go on')
    expect(await next.line()).toBe('bytes')
    await next.ended
    expect(leftOf(trace)).toEqual([])
  },
)

test.each(victims)('B9, H23: SIGKILL for the %s during create leaves nothing', async (victim) => {
  const random = seeded(SEED)
  for (let round = 0; round < 12; round++) {
    const home = makeFolder()('home')
    mkdirSync(home, { mode: 0o700 })
    const child = startModule(
      `const runtime = new Runtime({ home: process.env.TEST_HOME }).ref()
       console.log('begun')
       await runtime.create().then(() => console.log('created'), (error) => console.log(error.code))
       await lines.next()`,
      { TEST_HOME: home },
    )
    expect(await child.line()).toBe('begun')
    const seen = new Map<number, string>()
    await strike(child.pid, victim, Math.floor(random() * 4), seen)
    if (victim === 'owner') await child.ended
    else expect(await child.line(), `seed ${SEED}, round ${round}`).toMatch(/^(BOX_START|created)$/)
    const ids = idsIn(home)
    const where = `round ${round} of seed ${SEED}`
    await eventually(
      () =>
        allProcesses().filter(
          ({ pid, start, state }) => seen.get(pid) === start && state !== 'Z' && (victim === 'owner' || !isSpare(pid)),
        ),
      (left) => left.length === 0,
      `${where} to leave no process`,
    )
    // An owner that was killed before its keeper had its order leaves a directory, for the next open to remove.
    if (victim === 'owner') expect(await openRuntime({ home }).list(), where).toEqual([])
    await eventually(
      () => [...ids.flatMap((id) => leftOf({ id })), ...idsIn(home)],
      (left) => left.length === 0,
      `${where} to leave nothing`,
    )
    child.kill()
    await child.ended
  }
})

/** Kills the victim after it was looked for `after` times once it was there, and notes whom it sees. */
async function strike(owner: number, victim: (typeof victims)[number], after: number, seen: Map<number, string>) {
  let looks = 0
  // At every turn, not now and then: the moments of a create that it meets are close together.
  return until(
    () => {
      const below = descendantsOf(owner)
      for (const { pid, start } of below) seen.set(pid, start)
      const keeper = below.find(({ ppid }) => ppid === owner)
      const found = victim === 'keeper' ? keeper?.pid : below.find(({ ppid }) => ppid === keeper?.pid)?.pid
      if ((victim === 'owner' ? keeper : found) === undefined || looks++ < after) return false
      process.kill(victim === 'owner' ? owner : (found as number), 'SIGKILL')
      return true
    },
    () => `the ${victim} is not there`,
  )
}
