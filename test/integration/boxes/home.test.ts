// A home that several processes share, that was left in disorder, or that is not fit to be one.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { expect, test } from 'vitest'
import { Runtime } from '../../../lib/index.js'
import { eventually, runtimeOver, soon } from '../../support/boxes.js'
import { startModule } from '../../support/child.js'
import { makeFolder } from '../../support/folder.js'
import { coreOf, door, newGate, openRuntime, rejection, seeded } from '../../support/producer.js'
import { allProcesses, cgroupsNamed, gone, idsIn, keeperOf, leftOf, processOf, traceOf } from '../../support/traces.js'

const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? Date.now() % 1_000_000)

/** Does as each line says, and prints what came of it. */
const servant = `
const runtime = new Runtime({ home: process.env.TEST_HOME }).ref()
console.log('ready')
for await (const line of { [Symbol.asyncIterator]: () => lines }) {
  const [call, name, ifExists] = JSON.parse(line)
  const told = { create: () => runtime.create({ name, ...(ifExists && { ifExists }) }).then(({ id }) => id),
    list: () => runtime.list().then((all) => all.map(({ id, state }) => id + ' ' + state).sort().join(',')),
    get: () => runtime.get(name).then(({ id }) => id),
    stop: () => runtime.get(name).then((box) => box.stop()),
    close: () => runtime.close().then(() => 'closed') }[call]().catch((error) => error.code)
  console.log(await told)
  if (call === 'close') process.exit()
}
`
function startServant(home: string) {
  const child = startModule(servant, { TEST_HOME: home })
  return {
    child,
    ready: () => child.line(),
    async ask(...request: string[]): Promise<string> {
      child.tell(JSON.stringify(request))
      return child.line()
    },
  }
}

test('B5: of two runtimes creating one name, one wins and the other gets BOX_EXISTS', async () => {
  const home = makeFolder()('home')
  const [one, two] = [openRuntime({ home }), openRuntime({ home })]
  for (let round = 0; round < 5; round++) {
    const name = `web${round}`
    const ends = await Promise.allSettled([one.create({ name }), two.create({ name }), one.create({ name })])
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const end of ends) if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'BOX_EXISTS' })
  }
  expect(idsIn(home)).toHaveLength(5)
})

test('B5: of two processes creating one name, one wins; reuse gives both that box, and replace spares it while the other lives', async () => {
  const home = makeFolder()('home')
  const [one, two] = [startServant(home), startServant(home)]
  await Promise.all([one.ready(), two.ready()])
  const ends = await Promise.all([one.ask('create', 'web'), two.ask('create', 'web')])
  expect(ends.filter((end) => end === 'BOX_EXISTS')).toHaveLength(1)
  const id = ends.find((end) => end !== 'BOX_EXISTS') as string
  const [winner, loser] = ends[0] === id ? [one, two] : [two, one]
  const trace = traceOf(id)
  expect(await loser.ask('create', 'web', 'replace')).toBe('IN_USE')
  expect(await loser.ask('create', 'web', 'reuse')).toBe(id)
  expect(await loser.ask('get', 'web')).toBe(id)
  expect(await loser.ask('list')).toBe(`${id} running`)
  expect(keeperOf(id)?.pid).toBe(trace.keeper.pid)
  expect(await winner.ask('stop', 'web')).toBe('requested')
  expect(await loser.ask('create', 'web', 'reuse')).toBe(id)
  expect(keeperOf(id)).toBeDefined()
  expect(await loser.ask('stop', 'web')).toBe('requested')
  const replaced = await loser.ask('create', 'web', 'replace')
  expect(replaced).toMatch(/^[0-9a-f]{24}$/)
  expect(replaced).not.toBe(id)
  expect(idsIn(home)).toEqual([replaced])
  await Promise.all([one.ask('close'), two.ask('close')])
  await gone({ id: replaced })
})

test('B5: reuse starts a box that its owner has stopped, also where that was not heard yet', async () => {
  const home = makeFolder()('home')
  const [one, two] = [openRuntime({ home }), openRuntime({ home })]
  const owned = await one.create({ name: 'web' })
  const shared = await two.get('web')
  const gate = newGate()
  door.holdReactor(coreOf(two), gate)
  await eventually(door.waitingAtGate, (held) => held === 1, 'its thread to be held')
  await owned.stop()
  const reused = two.create({ name: 'web', ifExists: 'reuse' })
  // What the call finds in the home is found by now.
  for (let call = 0; call < 5; call++) await two.list()
  expect(shared.state).toBe('running')
  door.openGate(gate)
  expect(await reused).toBe(shared)
  expect((await shared.run(['true'])).exitCode).toBe(0)
})

test('B5: replace spares a box that another owner runs, also where it is open', async () => {
  const home = makeFolder()('home')
  const [one, two] = [openRuntime({ home }), openRuntime({ home })]
  const owned = await one.create({ name: 'web' })
  const shared = await two.get('web')
  expect(await rejection(two.create({ name: 'web', ifExists: 'replace' }))).toMatchObject({ code: 'IN_USE' })
  expect([owned.state, shared.state]).toEqual(['running', 'running'])
  await owned.stop()
  await soon(shared.waitForState('stopped'), 'the end')
  const replaced = await two.create({ name: 'web', ifExists: 'replace' })
  expect(replaced.id).not.toBe(owned.id)
  expect(idsIn(home)).toEqual([replaced.id])
})

test('B5: calls with reuse in one runtime, at once, get one box', async () => {
  const runtime = openRuntime({ home: makeFolder()('home') })
  const ask = () => runtime.create({ name: 'web', ifExists: 'reuse' })
  // It is made, then started, then made anew.
  for (const end of ['stop', 'remove', 'stop'] as const) {
    const boxes = await Promise.all([ask(), ask(), ask()])
    const [box] = boxes
    expect(new Set(boxes).size).toBe(1)
    expect(box.state).toBe('running')
    await box[end]({ force: true })
  }
})

test('B5: reuse gets a box that is started here while it is looked for', async () => {
  const runtime = openRuntime({ home: makeFolder()('home') })
  const box = await runtime.create({ name: 'web' })
  for (let round = 0; round < 10; round++) {
    await box.stop()
    const reused = runtime.create({ name: 'web', ifExists: 'reuse' })
    const started = box.start()
    // Both have done their work before either is told so.
    const until = performance.now() + 100
    while (performance.now() < until);
    const [first, second] = await soon(Promise.allSettled([reused, started]), 'both')
    // Either of them finds the other at work on it, which is no hang.
    if (first.status === 'rejected')
      expect(first.reason).toMatchObject({ code: expect.stringMatching(/BOX_STATE|IN_USE/) })
    if (second.status === 'rejected')
      expect(second.reason).toMatchObject({ code: expect.stringMatching(/BOX_STATE|IN_USE/) })
    expect(box.state).toBe('running')
  }
})

test('a box that is let go while its state is waited for says so, and lets the process end', async () => {
  const home = makeFolder()('home')
  const [one, two] = [openRuntime({ home }), openRuntime({ home })]
  await one.create({ name: 'web' })
  const shared = await two.get('web')
  const stopped = rejection(shared.waitForState('stopped'))
  await shared[Symbol.asyncDispose]()
  expect(await stopped).toMatchObject({ code: 'BOX_STATE', hint: expect.stringContaining('Get it again') })
  expect(await rejection(shared.waitForState('stopped'))).toMatchObject({ code: 'BOX_STATE' })
})

test('a box that was found as it stands has stopped, as list() says', async () => {
  const home = makeFolder()('home')
  const first = new Runtime({ home })
  await first.create({ name: 'web' })
  await first.create({ name: 'db', start: false })
  await first.close()
  const second = openRuntime({ home })
  const states = (await second.list()).map(({ state }) => state)
  expect(states).toEqual(['stopped', 'stopped'])
  for (const name of ['web', 'db']) {
    const box = await second.get(name)
    expect(box.state).toBe('stopped')
    await box.start()
    expect(box.state).toBe('running')
  }
})

test('B6: 60 concurrent creates collide in nothing', async () => {
  const runtime = runtimeOver('passed', { concurrency: { boots: 16 } })
  const boxes = await soon(
    Promise.all(Array.from({ length: 60 }, (_, n) => runtime.create(n % 3 === 0 ? { name: `box-${n}` } : {}))),
    'every box',
  )
  expect(new Set(boxes.map(({ id }) => id)).size).toBe(60)
  // Looked at once for all: there are many.
  const all = allProcesses()
  const traces = boxes.map(({ id }) => traceOf(id, undefined, all))
  expect(new Set(traces.map(({ namespace }) => namespace)).size).toBe(60)
  if (process.getuid?.() === 0) {
    const firsts = traces.map(({ first }) =>
      readFileSync(`/proc/${first.pid}/uid_map`, 'utf8').trim().split(/\s+/).map(Number),
    )
    const ranges = firsts
      .map(([, outside = 0, count = 0]) => [outside, outside + count] as const)
      .sort((a, b) => a[0] - b[0])
    for (const [n, [start]] of ranges.entries())
      if (n > 0) expect(start).toBeGreaterThanOrEqual(ranges[n - 1]?.[1] ?? 0)
  }
  const said = await Promise.all(boxes.map((box, n) => box.run(['sh', '-c', `echo ${n} > /tmp/file; cat /tmp/file`])))
  expect(said.map(({ stdout }) => stdout)).toEqual(boxes.map((_, n) => `${n}`))
  await soon(Promise.all(boxes.map((box) => box.remove({ force: true }))), 'every removal')
  for (const trace of traces) await gone(trace, runtime.home)
  expect(idsIn(runtime.home)).toEqual([])
})

test.each(['cut', 'garbled', 'empty', 'of a later version', 'of another box'] as const)(
  'B7: a record that is %s hides no other box, is not destroyed, and list() works',
  async (how) => {
    const home = makeFolder()('home')
    const first = new Runtime({ home })
    const [web, db] = await Promise.all([
      first.create({ name: 'web', start: false }),
      first.create({ name: 'db', start: false }),
    ])
    await first.close()
    const folder = `${home}/boxes/${web.id}`
    const text = readFileSync(`${folder}/record.json`, 'utf8')
    const damage = {
      cut: () => truncateSync(`${folder}/record.json`, Math.floor(text.length / 2)),
      garbled: () => writeFileSync(`${folder}/record.json`, text.replaceAll('"', '\u0000')),
      empty: () => truncateSync(`${folder}/record.json`, 0),
      'of a later version': () => writeFileSync(`${folder}/record.json`, text.replace('"version": 1', '"version": 99')),
      'of another box': () => writeFileSync(`${folder}/record.json`, text.replace(web.id, db.id)),
    }[how]
    damage()
    const second = openRuntime({ home })
    expect((await second.list()).map(({ name }) => name)).toEqual(['db'])
    expect(await second.has('db')).toBe(true)
    expect((await second.get('db')).id).toBe(db.id)
    expect(await rejection(second.get('web'))).toHaveProperty('code')
    expect(readdirSync(folder).filter((name) => name.startsWith('record.json'))).toHaveLength(1)
    expect((await second.list()).map(({ name }) => name)).toEqual(['db'])
  },
)

test('B9, B11: the boxes of an owner that was killed are gone or stopped, a live owner’s are untouched, twice over', async () => {
  const home = makeFolder()('home')
  const [dead, alive] = [startServant(home), startServant(home)]
  await Promise.all([dead.ready(), alive.ready()])
  const kept = await dead.ask('create', 'web')
  const passing = (await startUnnamed(home)).trace
  const theirs = await alive.ask('create', 'db')
  const [traceOfKept, traceOfTheirs] = [traceOf(kept), traceOf(theirs)]
  dead.child.kill()
  await dead.child.ended
  await gone(traceOfKept)
  await gone(passing, home)
  for (let round = 0; round < 2; round++) {
    const next = openRuntime({ home })
    const found = (await next.list()).map(({ id, state }) => `${id} ${state}`).sort()
    expect(found).toEqual([`${kept} stopped`, `${theirs} running`].sort())
    expect(idsIn(home).sort()).toEqual([kept, theirs].sort())
    expect(keeperOf(theirs)).toMatchObject({ pid: traceOfTheirs.keeper.pid, start: traceOfTheirs.keeper.start })
    await next.close()
  }
  expect(await alive.ask('list')).toContain(`${theirs} running`)
  expect(await alive.ask('stop', 'db')).toBe('requested')

  async function startUnnamed(path: string) {
    const child = startModule(
      `const runtime = new Runtime({ home: process.env.TEST_HOME }).ref()
       console.log((await runtime.create()).id)
       await lines.next()`,
      { TEST_HOME: path },
    )
    const trace = traceOf(await child.line())
    child.kill()
    await child.ended
    return { trace }
  }
})

test('H6: an aborted create rejects at once with the reason, and leaves nothing, whenever the abort comes', async () => {
  const random = seeded(SEED)
  const runtime = runtimeOver('passed')
  const baseline = runtime.stats().handles.live
  await Promise.all(
    Array.from({ length: 40 }, async (_, n) => {
      const controller = new AbortController()
      const reason = new Error('enough')
      const making = runtime.create({ ...(n % 2 === 0 && { name: `box-${n}` }), signal: controller.signal })
      const timer = setTimeout(() => controller.abort(reason), random() * 120)
      const outcome = await making.then(
        (box) => box.remove({ force: true }),
        (error) => expect(error).toBe(reason),
      )
      clearTimeout(timer)
      return outcome
    }),
  )
  // A box that came too late goes by itself.
  await goneAll(runtime.home)
  await eventually(
    () => runtime.list(),
    (all) => all.length === 0,
    'the last to go',
  )
  await soon(
    (async () => {
      while (runtime.stats().handles.live > baseline) await new Promise((resolve) => setImmediate(resolve))
    })(),
    'the handles to be given back',
  )
  expect((await (await runtime.create({ name: 'box-0' })).run(['true'])).ok).toBe(true)
})

test('H23: close() frees a box that was never started, and removes an unnamed one', async () => {
  const home = makeFolder()('home')
  const runtime = openRuntime({ home })
  const web = await runtime.create({ name: 'web', start: false })
  await runtime.create({ start: false })
  await runtime.close()
  expect(idsIn(home)).toEqual([web.id])
  const next = openRuntime({ home })
  const box = await next.get('web')
  await box.start()
  expect((await box.run(['echo', 'here'])).stdout).toBe('here')
})

test('H23: a close in the midst of creates leaves no process, directory, cgroup or name', async () => {
  const random = seeded(SEED)
  for (let round = 0; round < 10; round++) {
    const home = makeFolder()('home')
    const runtime = openRuntime({ home, concurrency: { boots: 4 } })
    const making = Promise.allSettled(Array.from({ length: 6 }, () => runtime.create()))
    await new Promise((resolve) => setTimeout(resolve, random() * 60))
    const ids = idsIn(home)
    await soon(runtime.close({ timeoutMs: 5000 }), 'close()')
    for (const end of await making)
      if (end.status === 'rejected') expect(end.reason, `seed ${SEED}`).toMatchObject({ code: 'RUNTIME_CLOSED' })
    await goneAll(home)
    for (const id of ids) await gone({ id }, home)
  }
})

test('H26: with its keeper stopped, close() ends in bounded time, and the next open finds the home usable', async () => {
  const home = makeFolder()('home')
  const runtime = openRuntime({ home })
  const box = await runtime.create()
  const trace = traceOf(box.id)
  process.kill(trace.keeper.pid, 'SIGSTOP')
  const start = performance.now()
  await runtime.close({ timeoutMs: 500 })
  expect(performance.now() - start).toBeLessThan(60_000)
  const next = openRuntime({ home })
  expect(await next.list()).toBeInstanceOf(Array)
  process.kill(trace.keeper.pid, 'SIGKILL')
  await eventually(
    () => trace.processes.map(({ pid, start }) => [processOf(pid), start] as const),
    // Nobody waits for the keeper any more: it stays as a zombie of this process.
    (left) => left.every(([now, start]) => now?.start !== start || now.state === 'Z'),
    'every process of it to be gone',
  )
  await next.close()
  const last = openRuntime({ home })
  expect(await last.list()).toEqual([])
  expect(leftOf({ ...trace, processes: [] }, home)).toEqual([])
})

test('S29: a home that is a link, a file or open to others is refused; one of too many rights is closed', async () => {
  const folder = makeFolder()
  mkdirSync(folder('open'), { mode: 0o755 })
  chmodSync(folder('open'), 0o777)
  symlinkSync(folder('open'), folder('link'))
  writeFileSync(folder('file'), '')
  for (const name of ['open', 'link', 'file'])
    expect(await rejection(openRuntime({ home: folder(name) }).list()), name).toMatchObject({ code: 'PERMISSION' })
  mkdirSync(folder('wide'), { mode: 0o755 })
  await openRuntime({ home: folder('wide') }).list()
  const { statSync } = await import('node:fs')
  expect(statSync(folder('wide')).mode & 0o777).toBe(0o700)
})

test('S28: names that could be paths or options are refused before anything is made', async () => {
  const runtime = runtimeOver('passed')
  const names = ['a/b', '..', '.hidden', '-rf', 'a\nb', 'a\0b', '', 'x'.repeat(129)]
  for (const name of names)
    expect(await rejection(runtime.create({ name })), JSON.stringify(name)).toMatchObject({
      code: 'INVALID_ARGUMENT',
      argument: 'name',
    })
  expect(existsSync(`${runtime.home}/boxes`) ? idsIn(runtime.home) : []).toEqual([])
})

test('S31: directories and cgroups that only look like a box’s stay', async () => {
  const home = makeFolder()('home')
  await openRuntime({ home }).list()
  const [alike, foreign] = [`${home}/boxes/web`, `${home}/boxes/${'0'.repeat(23)}g`]
  for (const path of [alike, foreign]) mkdirSync(path)
  const next = openRuntime({ home })
  expect(await next.list()).toEqual([])
  expect([alike, foreign].every((path) => existsSync(path))).toBe(true)
  expect(cgroupsNamed('sluicebox-none')).toEqual([])
})

async function goneAll(home: string): Promise<void> {
  await eventually(
    () => idsIn(home),
    (ids) => ids.length === 0,
    'every box to be gone',
  )
}
