// One promise, one settlement: completion, failure, abort and close racing for the same operation, and what becomes of the losers.
import { getEventListeners, getMaxListeners } from 'node:events'
import { expect, test } from 'vitest'
import { RuntimeClosedError } from '../../../lib/index.js'
import { Runtime } from '../../../lib/runtime.js'
import { runModule } from '../../support/child.js'
import {
  blockUntil,
  coreOf,
  door,
  newGate,
  openRuntime,
  rejection,
  runWork,
  seeded,
  settled,
  turn,
  until,
  type WorkRequest,
} from '../../support/producer.js'

const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? Date.now() % 1_000_000)
const say = `seed ${SEED}`

const handlesOf = (runtime: Runtime) => runtime.stats().handles

test('H2, H33: 500 races of completion, failure, abort and close settle each promise once, and committed work as success', async () => {
  const random = seeded(SEED)
  const payloads = door.livePayloads()
  const outcomes = new Map<string, number>()
  for (let race = 0; race < 500; race++) {
    const runtime = new Runtime({
      workers: 1 + Math.floor(random() * 3),
      queue: { maxEvents: random() < 0.3 ? 8 : 64 },
    })
    const controller = new AbortController()
    const reason = new Error('aborted')
    const gate = newGate()
    const request: WorkRequest = {
      ends: (['value', 'error', 'throw'] as const)[Math.floor(random() * 3)],
      gate,
      commits: random() < 0.3,
    }
    const works = Array.from({ length: 4 }, () => {
      const options = { signal: controller.signal, onProgress: random() < 0.5 ? () => {} : undefined }
      return runWork(runtime, request, options)
    })
    let settlements = 0
    for (const work of works)
      work.then(
        () => settlements++,
        () => settlements++,
      )
    const moves = [
      () => door.openGate(gate),
      () => controller.abort(reason),
      () => void runtime.close({ timeoutMs: 50 }),
    ]
    moves.sort(() => random() - 0.5)
    for (const move of moves) {
      for (let i = Math.floor(random() * 4); i > 0; i--) await turn()
      move()
    }
    const ended = await settled(Promise.allSettled(works))
    if (ended.status === 'rejected') throw new Error(`${say}, race ${race}`, { cause: ended.reason })
    for (const outcome of ended.value) {
      const kind =
        outcome.status === 'fulfilled'
          ? `value ${outcome.value}`
          : outcome.reason === reason
            ? 'aborted'
            : `${(outcome.reason as { code: string }).code}`
      outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1)
    }
    await settled(runtime.close())
    expect(settlements, `${say}, race ${race}`).toBe(4)
    expect(handlesOf(runtime), `${say}, race ${race}`).toMatchObject({ live: 0 })
    expect(handlesOf(runtime).claimed, `${say}, race ${race}`).toBe(handlesOf(runtime).finalized)
    expect(getEventListeners(controller.signal, 'abort').length).toBe(0)
  }
  expect([...outcomes.keys()].sort(), say).toEqual(['INTERNAL', 'IO', 'RUNTIME_CLOSED', 'aborted', 'value 42'].sort())
  await until(
    () => door.livePayloads() === payloads,
    () => ({ now: door.livePayloads(), payloads, say }),
  )
})

test('H3, H8: what a worker brings after it was given up is reclaimed by its type, with no caller, event or runtime left', async () => {
  const runtime = new Runtime({ workers: 1 })
  const [live, reclaimed] = [door.livePayloads(), door.reclaimed()]
  const gate = newGate()
  const controller = new AbortController()
  const work = runWork(runtime, { gate, stubborn: true }, { signal: controller.signal })
  await until(
    () => door.waitingAtGate() === 1,
    () => door.waitingAtGate(),
  )
  controller.abort('given up')
  expect(await rejection(work)).toBe('given up')
  expect(handlesOf(runtime)).toMatchObject({ live: 0, claimed: 1, finalized: 1 })
  door.openGate(gate)
  await until(
    () => door.waitingAtGate() === 0,
    () => door.waitingAtGate(),
  )
  await runtime.close()
  await until(
    () => door.livePayloads() === live,
    () => ({ live, now: door.livePayloads() }),
  )
  // A stubborn one that was cancelled answers with an error, whose rule is to free it and no more.
  expect(door.reclaimed()).toBe(reclaimed)
})

test('H3: a value that lost its claim to close is reclaimed once, by its own rule', async () => {
  const runtime = new Runtime({ workers: 1 })
  const [live, reclaimed] = [door.livePayloads(), door.reclaimed()]
  const gate = newGate()
  // Committed: cancel comes too late, so that it does bring its value.
  const work = runWork(runtime, { gate, stubborn: true, commits: true })
  await until(
    () => door.waitingAtGate() === 1,
    () => door.waitingAtGate(),
  )
  const closed = runtime.close({ timeoutMs: 0 })
  expect(await rejection(work)).toBeInstanceOf(RuntimeClosedError)
  door.openGate(gate)
  await closed
  await until(
    () => door.reclaimed() === reclaimed + 1,
    () => door.reclaimed(),
  )
  await until(
    () => door.livePayloads() === live,
    () => door.livePayloads(),
  )
  expect(door.reclaimed()).toBe(reclaimed + 1)
})

test('H3: a payload that was claimed is disarmed: its reclaim rule does not run', async () => {
  const runtime = openRuntime()
  const [live, reclaimed] = [door.livePayloads(), door.reclaimed()]
  await Promise.all(Array.from({ length: 200 }, () => runWork(runtime)))
  await until(
    () => door.livePayloads() === live,
    () => door.livePayloads(),
  )
  expect(door.reclaimed()).toBe(reclaimed)
})

test('H29: a submission that fails on the spot rejects, gives back its handle and never reports progress', async () => {
  const runtime = openRuntime()
  const controller = new AbortController()
  let reports = 0
  for (let i = 0; i < 100; i++) {
    const work = runWork(runtime, { ends: 7 as never }, { signal: controller.signal, onProgress: () => void reports++ })
    expect(await rejection(work)).toMatchObject({ message: 'ends: expected a string' })
  }
  expect(reports).toBe(0)
  expect(handlesOf(runtime).live).toBe(0)
  expect(getEventListeners(controller.signal, 'abort').length).toBe(0)
  expect(await runWork(runtime)).toBe(42)
})

test('H32: a signal aborted beforehand submits nothing and rejects with its reason', async () => {
  const runtime = openRuntime()
  for (const reason of ['word', undefined, new Error('mine')]) {
    const signal = AbortSignal.abort(reason)
    expect(await rejection(runWork(runtime, {}, { signal }))).toBe(signal.reason)
    expect(await rejection(runtime.images.info('/', { signal }))).toBe(signal.reason)
    expect(await rejection(runtime.doctor({ signal }))).toBe(signal.reason)
  }
  expect(handlesOf(runtime)).toEqual({ live: 0, claimed: 0, finalized: 0 })
})

test('H32: an abort after settlement does nothing, and 10,000 operations leave no listener on their signal', async () => {
  const runtime = openRuntime({ workers: 2, concurrency: { images: 64 } })
  const controller = new AbortController()
  const results = await Promise.all(
    Array.from({ length: 10_000 }, () => runWork(runtime, {}, { signal: controller.signal })),
  )
  expect(getEventListeners(controller.signal, 'abort').length).toBe(0)
  controller.abort()
  await turn()
  expect(results.every((value) => value === 42)).toBe(true)
  expect(handlesOf(runtime)).toEqual({ live: 0, claimed: 10_000, finalized: 10_000 })
})

test('H33: work that committed before the abort reports its success', async () => {
  const runtime = openRuntime({ workers: 1 })
  const gate = newGate()
  const controller = new AbortController()
  const work = runWork(runtime, { gate, commits: true, stubborn: true }, { signal: controller.signal })
  await until(
    () => door.waitingAtGate() === 1,
    () => door.waitingAtGate(),
  )
  controller.abort(new Error('too late'))
  await turn()
  door.openGate(gate)
  expect(await settled(work)).toEqual({ status: 'fulfilled', value: 42 })
})

test('H33: work that had not committed rejects with the reason of the abort, whatever its own end would have been', async () => {
  const runtime = openRuntime({ workers: 1 })
  for (const ends of ['value', 'error', 'throw'] as const) {
    const gate = newGate()
    const controller = new AbortController()
    const work = runWork(runtime, { gate, ends }, { signal: controller.signal })
    await until(
      () => door.waitingAtGate() === 1,
      () => door.waitingAtGate(),
    )
    controller.abort(ends)
    expect(await rejection(work)).toBe(ends)
  }
})

test('H35: after 10,000 operations aborted at random the live handles are at their baseline, and claimed equals finalized', async () => {
  const runtime = openRuntime({ workers: 2, concurrency: { images: 32 } })
  const random = seeded(SEED)
  const live = door.livePayloads()
  const counts = { value: 0, aborted: 0 }
  for (let batch = 0; batch < 50; batch++) {
    const works = Array.from({ length: 200 }, async () => {
      const controller = new AbortController()
      const work = runWork(runtime, { commits: random() < 0.2 }, { signal: controller.signal })
      const turns = Math.floor(random() * 5)
      if (random() < 0.6) void nextTurns(turns).then(() => controller.abort('random'))
      try {
        expect(await work).toBe(42)
        counts.value++
      } catch (reason) {
        expect(reason, say).toBe('random')
        counts.aborted++
      }
    })
    await settled(Promise.all(works))
  }
  expect(counts.value, say).toBeGreaterThan(100)
  expect(counts.aborted, say).toBeGreaterThan(100)
  const { live: handles, claimed, finalized } = handlesOf(runtime)
  expect({ handles, difference: claimed - finalized }, say).toEqual({ handles: 0, difference: 0 })
  await until(
    () => door.livePayloads() === live,
    () => ({ now: door.livePayloads(), live, say }),
  )
})

const nextTurns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await turn()
}

test('H11: a completion that finds the queue crowded is published all the same, and close in between settles it', async () => {
  const runtime = new Runtime({ workers: 1, queue: { maxEvents: 8 } })
  const crowd = new door.Reservation(coreOf(runtime), 7)
  const gate = newGate()
  const work = runWork(runtime, { gate })
  await until(
    () => door.waitingAtGate() === 1,
    () => door.waitingAtGate(),
  )
  door.openGate(gate)
  blockUntil(
    () => coreOf(runtime).depth() === 1,
    () => runtime.stats(),
  )
  // Ended, not yet dispatched: its true result is what close settles it with.
  await runtime.close()
  expect(await settled(work)).toEqual({ status: 'fulfilled', value: 42 })
  crowd.release()
})

test('H33: work that committed before the abort and then failed rejects with its own error', async () => {
  const runtime = openRuntime({ workers: 1 })
  const gate = newGate()
  const controller = new AbortController()
  const work = runWork(runtime, { gate, commits: true, ends: 'error' }, { signal: controller.signal })
  await until(
    () => door.waitingAtGate() === 1,
    () => door.waitingAtGate(),
  )
  controller.abort(new Error('too late'))
  await turn()
  door.openGate(gate)
  expect(await rejection(work)).toMatchObject({ code: 'IO', op: 'testing.work' })
})

test('H2: work whose answer was lost is INTERNAL while the runtime is open, and RUNTIME_CLOSED only when it closes', async () => {
  const runtime = openRuntime({ workers: 1 })
  expect(await rejection(runWork(runtime, { ends: 'nothing' }))).toMatchObject({
    code: 'INTERNAL',
    op: 'testing.work',
    message: expect.stringMatching(/thread.*memory/),
  })
  const work = runWork(runtime, { gate: newGate(), ends: 'nothing' })
  void runtime.close()
  expect(await rejection(work)).toMatchObject({ code: 'RUNTIME_CLOSED' })
})

test.each([
  ['gives frames', '(error, frames) => frames'],
  ['throws', "() => { throw new Error('formatter') }"],
])('H2, H20: a call rejects, and close() ends, under an Error.prepareStackTrace that %s', async (_what, formatter) => {
  const ended = await runModule(`
    const runtime = new Runtime()
    const held = runWork(runtime, { gate: 1 })
    Error.prepareStackTrace = ${formatter}
    console.log(await runtime.images.info('/nonexistent').catch(({ code }) => code))
    const closed = runtime.close({ timeoutMs: 100 })
    console.log(await held.catch(({ code }) => code))
    await closed
    console.log(runtime.stats().handles.live)
  `)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'IMAGE_NOT_FOUND\nRUNTIME_CLOSED\n0\n', stderr: '' })
})

test('H32: a signal has one listener of ours for all its calls, and keeps its own limit of listeners', async () => {
  const runtime = openRuntime({ workers: 1 })
  const controller = new AbortController()
  const { signal } = controller
  const limit = getMaxListeners(signal)
  const gate = newGate()
  const works = Array.from({ length: 50 }, () => runWork(runtime, { gate }, { signal }))
  expect(getEventListeners(signal, 'abort').length).toBe(1)
  expect(getMaxListeners(signal)).toBe(limit)
  controller.abort('enough')
  for (const work of works) expect(await rejection(work)).toBe('enough')
  expect(getEventListeners(signal, 'abort').length).toBe(0)
})

/** A signal of another library's class. */
class OtherSignal {
  aborted = false
  reason: unknown
  listener: (() => void) | undefined
  addEventListener(_type: string, listener: () => void): void {
    this.listener = () => {
      this.removeEventListener()
      listener()
    }
  }
  removeEventListener(): void {
    this.listener = undefined
  }
  abort(reason: unknown): void {
    this.aborted = true
    this.reason = reason
    this.listener?.()
  }
}

test('H32: a signal of another class stops a call and gets its listener back', async () => {
  const runtime = openRuntime({ workers: 1 })
  const crowd = runWork(runtime, { gate: newGate() })
  const signal = new OtherSignal()
  const work = runtime.images.info('/nonexistent', { signal: signal as unknown as AbortSignal })
  expect(signal.listener).toBeDefined()
  signal.abort('mine')
  expect(await rejection(work)).toBe('mine')
  expect(signal.listener).toBeUndefined()
  void runtime.close()
  await rejection(crowd)
})

test('H29, Q24: a signal that cannot be listened to is INVALID_ARGUMENT, and holds no process', async () => {
  const ended = await runModule(`
    const hollow = Object.create(AbortSignal.prototype)
    // Of the class that is asked for, and yet of no use.
    globalThis.AbortSignal = class { aborted = false; addEventListener() { throw new TypeError('no') } removeEventListener() {} }
    const runtime = new Runtime()
    for (const signal of [new AbortSignal(), hollow])
      console.log(await runtime.images.info('/etc/hostname', { signal }).catch(({ code, argument }) => code + ' ' + argument))
    console.log(runtime.stats().handles.live)
  `)
  const refused = 'INVALID_ARGUMENT signal\n'
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: `${refused}${refused}0\n`, stderr: '' })
})
