// The life of a box: its states, what each call does in them, and what is left after it.
import { existsSync, readdirSync, statSync } from 'node:fs'
import { expect, test } from 'vitest'
import type { Box, BoxLifecycleEvent, BoxState } from '../../../lib/index.js'
import { runtimeOver, soon } from '../../support/boxes.js'
import { rejection } from '../../support/producer.js'
import { gone, keeperOf, traceOf } from '../../support/traces.js'

const statesOf = (box: Box): string[] => {
  const seen: string[] = []
  box.on('state', (state, previous) => seen.push(`${previous}>${state}`))
  return seen
}

test('B1: a named box goes through its states, each change told once and in order, to box and runtime', async () => {
  const runtime = runtimeOver('passed')
  const events: string[] = []
  runtime.on('box', ({ type }: BoxLifecycleEvent) => events.push(type))
  const box = await runtime.create({ name: 'web', start: false })
  const seen = statesOf(box)
  expect(box.state).toBe('created')
  await box.start()
  expect(await box.stop()).toBe('requested')
  await box.restart()
  await box.restart()
  await box.stop({ force: true })
  await box.remove()
  const cycle = ['starting>running', 'running>stopping', 'stopping>stopped']
  expect(seen).toEqual([
    'created>starting',
    ...cycle,
    'stopped>starting',
    ...cycle,
    'stopped>starting',
    ...cycle,
    'stopped>removed',
  ])
  expect(events).toEqual(['created', ...seen.map((change) => change.split('>')[1])])
})

const calls: Record<string, (box: Box) => Promise<unknown>> = {
  start: (box) => box.start(),
  stop: (box) => box.stop(),
  remove: (box) => box.remove(),
  exec: (box) => box.exec(['true']),
  run: (box) => box.run(['true']),
  shell: (box) => box.shell('true'),
}
/** What may not be called in which state; the rest may. */
const refused: Partial<Record<BoxState, (keyof typeof calls)[]>> = {
  created: ['stop', 'exec', 'run', 'shell'],
  running: ['start', 'remove'],
  stopped: ['stop', 'exec', 'run', 'shell'],
  failed: ['stop', 'exec', 'run', 'shell'],
  removed: ['start', 'stop', 'exec', 'run', 'shell'],
}
const ways: Partial<Record<BoxState, (box: Box) => Promise<unknown>>> = {
  created: async () => {},
  running: (box) => box.start(),
  stopped: (box) => box.start().then(() => box.stop({ force: true })),
  failed: async (box) => {
    await box.start()
    const failed = box.waitForState('failed')
    process.kill(traceOf(box.id).first.pid, 'SIGKILL')
    await failed
  },
  removed: (box) => box.remove(),
}
test.each(Object.keys(refused) as BoxState[])(
  'B1, X57: a call that a %s box does not allow is BOX_STATE naming it',
  async (state) => {
    const box = await runtimeOver('passed').create({ name: 'web', start: false })
    box.on('error', () => {})
    await ways[state]?.(box)
    expect(box.state).toBe(state)
    for (const name of refused[state] ?? []) {
      const error = await rejection((calls[name] as (box: Box) => Promise<unknown>)(box))
      expect(error, `${name} of a box that is ${state}`).toMatchObject({ code: 'BOX_STATE', boxId: box.id })
      expect((error as Error).message).toContain(state)
    }
    expect(box.state).toBe(state)
  },
)

test('B2: a running box answers at once, and nothing says running earlier', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ name: 'web', start: false })
  const answers: Promise<unknown>[] = []
  box.on('state', (state) => {
    if (state === 'running') answers.push(box.run(['echo', 'here']))
  })
  const started = box.start()
  expect(box.state).not.toBe('running')
  expect(await rejection(box.run(['true']))).toMatchObject({ code: 'BOX_STATE' })
  await started
  expect(answers).toHaveLength(1)
  expect(await answers[0]).toMatchObject({ stdout: 'here', exitCode: 0 })
  // Made with `start`: created, starting and running are told in that order, after the fact.
  const events: string[] = []
  runtime.on('box', ({ type }) => events.push(type))
  expect((await (await runtime.create()).run(['echo', 'here'])).stdout).toBe('here')
  expect(events).toEqual(['created', 'starting', 'running'])
})

test('B4: ids have 96 random bits and name the keeper, the directory and the cgroups; no name does', async () => {
  const runtime = runtimeOver('passed')
  const boxes = await Promise.all(['web', 'db'].map((name) => runtime.create({ name })))
  expect(new Set(boxes.map(({ id }) => id)).size).toBe(2)
  for (const { id } of boxes) {
    expect(id).toMatch(/^[0-9a-f]{24}$/)
    expect(keeperOf(id)).toBeDefined()
  }
  expect(readdirSync(`${runtime.home}/boxes`).sort()).toEqual(boxes.map(({ id }) => id).sort())
  expect(await runtime.get('web')).toBe(boxes[0])
  expect(await runtime.get(boxes[0]?.id as string)).toBe(boxes[0])
  expect(await runtime.has('web')).toBe(true)
  expect(await runtime.has('we')).toBe(false)
  expect(await rejection(runtime.get('mail'))).toMatchObject({ code: 'BOX_NOT_FOUND', op: 'get' })
  expect(await rejection(runtime.remove('mail'))).toMatchObject({ code: 'BOX_NOT_FOUND', op: 'remove' })
})

test('list, info, get and has tell what there is, by labels, state and name', async () => {
  const runtime = runtimeOver('passed')
  const [web, db] = await Promise.all([
    runtime.create({ name: 'web', labels: { tier: 'front', app: 'x' }, memory: Number.POSITIVE_INFINITY }),
    runtime.create({ name: 'db', labels: { tier: 'back', app: 'x' }, start: false }),
  ])
  const names = async (filter: Parameters<typeof runtime.list>[0]) =>
    (await runtime.list(filter)).map(({ name }) => name).sort()
  expect(await names({})).toEqual(['db', 'web'])
  expect(await names({ labels: { app: 'x' } })).toEqual(['db', 'web'])
  expect(await names({ labels: { app: 'x', tier: 'front' } })).toEqual(['web'])
  expect(await names({ labels: { tier: 'none' } })).toEqual([])
  expect(await names({ labels: { toString: 'x' } })).toEqual([])
  expect(await names({ state: 'running' })).toEqual(['web'])
  expect(await names({ state: ['created', 'running'] })).toEqual(['db', 'web'])
  expect(await names({ name: 'db' })).toEqual(['db'])
  const info = await web.info()
  expect(info).toMatchObject({
    id: web.id,
    name: 'web',
    state: 'running',
    memoryBytes: null,
    vcpus: 1,
    isolation: 'namespace',
    rootfs: 'host',
    labels: { tier: 'front', app: 'x' },
  })
  expect(Math.abs(info.createdAt.getTime() - Date.now())).toBeLessThan(60_000)
  expect(info.startedAt?.getTime()).toBeGreaterThanOrEqual(info.createdAt.getTime())
  expect((await db.info()).startedAt).toBe(undefined)
  expect(runtime.stats().boxes).toEqual({ running: 1, total: 2 })
  await runtime.remove('db')
  expect(await rejection(runtime.remove('web'))).toMatchObject({ code: 'BOX_STATE' })
  await runtime.remove('web', { force: true })
  expect(await runtime.list()).toEqual([])
  expect(runtime.stats().boxes).toEqual({ running: 0, total: 0 })
})

test('ifExists: error refuses, reuse hands over what is there, replace removes it first', async () => {
  const runtime = runtimeOver('passed')
  const web = await runtime.create({ name: 'web' })
  await web.shell('echo kept > /var/tmp/file || echo kept > /tmp/file')
  expect(await rejection(runtime.create({ name: 'web' }))).toMatchObject({ code: 'BOX_EXISTS', op: 'create' })
  expect(await runtime.create({ name: 'web', ifExists: 'reuse' })).toBe(web)
  await web.stop()
  const again = await runtime.create({ name: 'web', ifExists: 'reuse' })
  expect(again).toBe(web)
  expect(again.state).toBe('running')
  await web.stop({ force: true })
  const replaced = await runtime.create({ name: 'web', ifExists: 'replace' })
  expect(replaced.id).not.toBe(web.id)
  expect((await replaced.shell('cat /var/tmp/file /tmp/file')).ok).toBe(false)
  expect(await runtime.get('web')).toBe(replaced)
  expect(existsSync(`${runtime.home}/boxes/${web.id}`)).toBe(false)
  expect(web.state).toBe('removed')
  // Also one that runs, and one that was never started.
  const third = await runtime.create({ name: 'web', ifExists: 'replace', start: false })
  expect([replaced.state, third.state]).toEqual(['removed', 'created'])
  const fourth = await runtime.create({ name: 'web', ifExists: 'replace' })
  expect([third.state, fourth.state]).toEqual(['removed', 'running'])
  expect((await runtime.list()).map(({ id }) => id)).toEqual([fourth.id])
})

test('B14: an unnamed box goes with all it wrote when it stops; a named one keeps its bytes over stop and start', async () => {
  const runtime = runtimeOver('passed')
  const [unnamed, named, passing] = await Promise.all([
    runtime.create(),
    runtime.create({ name: 'web' }),
    runtime.create({ name: 'passing', ephemeral: true }),
  ])
  for (const box of [unnamed, named, passing])
    await box.shell('mkdir /data && echo bytes > /data/file', { check: true })
  for (const box of [unnamed, passing]) {
    const trace = traceOf(box.id)
    const removed = box.waitForState('removed')
    await box.stop()
    await soon(removed, 'it to be removed')
    await gone(trace, runtime.home)
    expect(await rejection(runtime.get(box.id))).toMatchObject({ code: 'BOX_NOT_FOUND' })
  }
  const trace = traceOf(named.id)
  await named.stop()
  await gone(trace)
  expect(named.state).toBe('stopped')
  await named.start()
  expect((await named.run(['cat', '/data/file'])).stdout).toBe('bytes')
  await named.shell('echo more >> /data/file', { check: true })
  await named.restart()
  expect((await named.run(['cat', '/data/file'])).stdout).toBe('bytes\nmore')
  const last = traceOf(named.id)
  await named.remove({ force: true })
  await gone(last, runtime.home)
})

test('B15: stop lets processes end by themselves, and forces only after its time; both keep the bytes', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ name: 'web' })
  await box.shell('mkdir /data', { check: true })
  const polite = await box.exec([
    'sh',
    '-c',
    'trap "echo ended > /data/polite; exit 3" TERM; echo ready; while :; do sleep 0.05; done',
  ])
  await polite.waitForLine('ready')
  expect(await box.stop({ timeoutMs: 20_000 })).toBe('requested')
  expect(await polite.wait()).toMatchObject({ exitCode: 3 })
  await box.start()
  expect((await box.run(['cat', '/data/polite'])).stdout).toBe('ended')
  const stubborn = await box.exec([
    'sh',
    '-c',
    'trap "" TERM; echo begun > /data/stubborn; echo ready; while :; do sleep 0.05; done',
  ])
  await stubborn.waitForLine('ready')
  const start = performance.now()
  expect(await box.stop({ timeoutMs: 300 })).toBe('killed')
  expect(performance.now() - start).toBeGreaterThan(250)
  expect(await stubborn.wait().catch((error) => error)).toSatisfy(
    (end) => end.signal === 'SIGKILL' || end.code === 'EXEC_LOST',
  )
  await box.start()
  expect((await box.run(['cat', '/data/stubborn'])).stdout).toBe('begun')
})

test('B16: stop, kill and remove may be repeated and run at once', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ name: 'web' })
  const seen = statesOf(box)
  const sleep = await box.exec(['sleep', '1000'])
  expect(await rejection(box.remove())).toMatchObject({ code: 'BOX_STATE' })
  const killed = await Promise.all(Array.from({ length: 5 }, () => sleep.kill('SIGKILL')))
  expect(killed).toContain(true)
  const stops = await soon(Promise.all(Array.from({ length: 5 }, () => box.stop())), 'every stop')
  expect(new Set(stops)).toEqual(new Set(['requested']))
  await soon(Promise.all(Array.from({ length: 5 }, () => box.remove())), 'every remove')
  expect(seen).toEqual(['running>stopping', 'stopping>stopped', 'stopped>removed'])
  await box.remove().catch((error) => expect(error).toMatchObject({ code: 'BOX_STATE' }))
  const other = await runtime.create()
  const trace = traceOf(other.id)
  const ends = await soon(
    Promise.allSettled([
      other.remove({ force: true }),
      other.stop({ force: true }),
      other.remove({ force: true }),
      other[Symbol.asyncDispose](),
    ]),
    'all of them',
  )
  for (const end of ends) if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'BOX_STATE' })
  await gone(trace, runtime.home)
})

test('B16: stop and remove during starting leave the box started or gone, and no call hangs', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ name: 'web', start: false })
  const seen = statesOf(box)
  const started = box.start()
  const ends = await soon(
    Promise.allSettled([started, box.stop({ force: true }), box.remove({ force: true }), box.start()]),
    'all of them',
  )
  for (const end of ends) if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'BOX_STATE' })
  const changes = seen.map((change) => change.split('>'))
  for (const [n, [from]] of changes.entries()) expect(from).toBe(n === 0 ? 'created' : changes[n - 1]?.[1])
  if (box.state !== 'removed') await soon(box.remove({ force: true }), 'the last remove')
  await gone({ id: box.id }, runtime.home)
})

test.each(['first', 'keeper'] as const)(
  'B17, B43: with its %s process killed a box is failed, told once, its executions lost, and all cleaned up',
  async (which) => {
    const runtime = runtimeOver('passed')
    for (const name of [undefined, 'web']) {
      const box = await runtime.create({ name })
      const errors: Error[] = []
      box.on('error', (error) => errors.push(error))
      const seen = statesOf(box)
      const sleep = await box.exec(['sleep', '1000'])
      const lost = rejection(sleep.wait())
      const trace = traceOf(box.id)
      const failed = box.waitForState('failed')
      process.kill(trace[which].pid, 'SIGKILL')
      expect(await soon(lost, 'the execution to be lost')).toMatchObject({ code: 'EXEC_LOST' })
      await soon(failed, 'the box to fail')
      await gone(trace, name === undefined ? runtime.home : undefined)
      expect(errors).toHaveLength(1)
      expect(errors[0]).toMatchObject({ code: 'BOX_LOST', boxId: box.id })
      // By its end, and not because it has said nothing for long.
      expect(errors[0]?.message).not.toContain('does not answer')
      expect(seen).toEqual(['running>failed'])
      if (name === undefined) {
        await box.remove().catch((error) => expect(error).toMatchObject({ code: 'BOX_STATE' }))
        continue
      }
      await box.start()
      expect((await box.run(['echo', 'again'])).stdout).toBe('again')
      expect(errors).toHaveLength(1)
    }
  },
)

test('H27: every method of a removed box is typed; its plain getters answer', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ name: 'web' })
  await box.remove({ force: true })
  for (const [name, call] of Object.entries({
    ...calls,
    info: (box: Box) => box.info(),
    executions: (box: Box) => box.executions(),
    restart: (box: Box) => box.restart(),
  })) {
    if (name === 'remove') await box.remove().catch((error) => expect(error).toMatchObject({ code: 'BOX_STATE' }))
    else expect(await rejection(call(box)), name).toMatchObject({ code: 'BOX_STATE' })
  }
  expect(await rejection(box.waitForState('running'))).toMatchObject({ code: 'BOX_STATE' })
  expect([box.id.length, box.name, box.state]).toEqual([24, 'web', 'removed'])
  await box[Symbol.asyncDispose]()
})

test('S29: the home is 0700 and its files 0600', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ name: 'web' })
  const mode = (path: string) => (statSync(`${runtime.home}/${path}`).mode & 0o777).toString(8)
  expect([mode(''), mode('boxes'), mode(`boxes/${box.id}`)]).toEqual(['700', '700', '700'])
  for (const entry of readdirSync(`${runtime.home}/boxes/${box.id}`, { withFileTypes: true }))
    expect(mode(`boxes/${box.id}/${entry.name}`), entry.name).toBe(entry.isDirectory() ? '700' : '600')
})
