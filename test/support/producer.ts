// The tests' way behind a runtime: producers that flood its queue, operations that do as they are told, and waiting that can fail.
import { AsyncResource } from 'node:async_hooks'
import { inspect } from 'node:util'
import { onTestFinished } from 'vitest'
import { type Drain, generationOf } from '../../lib/drain.js'
import type { Progress } from '../../lib/image-types.js'
import { type Addon, type Core, type HandleId, loadAddon } from '../../lib/native.js'
import type { RuntimeOptions } from '../../lib/options.js'
import { internals, Runtime } from '../../lib/runtime.js'
import { DEADLINE_MS } from './deadline.js'

export interface EventFlood {
  readonly ids: HandleId[]
  start(): void
  /** Ends the producers and gives their slots back; the handles stay. */
  stop(): void
  posted(): number
  threadIds(): number[]
}
export interface LaneFlood {
  readonly ids: HandleId[]
  start(): void
  read(index: number): { chunk: Buffer; more: boolean; ended: boolean }
  stop(): void
  /** Bytes in all lanes. */
  held(): number
}
/** What the addon has for tests only. */
export interface TestDoor {
  /** `count` is per producer, 0: until stopped. Per handle, events are numbered from 0. */
  EventFlood: new (
    core: Core,
    options: { producers: number; handles: number; channels: number; count: number },
  ) => EventFlood
  /** Byte k of a patterned stream is k mod 251. */
  LaneFlood: new (
    core: Core,
    options: { lanes: number; chunk: number; bytes: number; highWaterMark: number; patterned: boolean },
  ) => LaneFlood
  Reservation: new (core: Core, slots: number) => { release(): void }
  threadId(): number
  livePayloads(): number
  reclaimed(): number
  /** Lets pass all work whose gate is `number` or below. */
  openGate(number: number): void
  waitingAtGate(): number
  /** Holds the thread that hears of this runtime's boxes at a gate. */
  holdReactor(core: Core, gate: number): void
}

export interface WorkRequest {
  /** 'nothing': no answer, as when there is no memory for one. */
  ends?: 'value' | 'error' | 'throw' | 'nothing'
  /** 0: none. */
  gate?: number
  /** Does not look at its cancel token. */
  stubborn?: boolean
  /** Before it waits at the gate. */
  commits?: boolean
}
interface WorkOptions {
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

export const door = (loadAddon().addon as Addon & { testing: TestDoor }).testing
/** What testing.work resolves to. */
export const WORK_RESULT = 42

/** Closed when the test ends, whatever became of it. */
export function openRuntime(options?: RuntimeOptions): Runtime {
  const runtime = new Runtime(options)
  onTestFinished(() => runtime.close({ timeoutMs: 10_000 }))
  return runtime
}

export function drainOf(runtime: Runtime): Drain {
  const inside = internals.get(runtime)
  if (!inside) throw new Error('not a runtime')
  return inside.drain
}

export const coreOf = (runtime: Runtime): Core => drainOf(runtime).core

export function runWork(runtime: Runtime, request: WorkRequest = {}, options: WorkOptions = {}): Promise<unknown> {
  const inside = internals.get(runtime)
  if (!inside) throw new Error('not a runtime')
  const whole = { ends: 'value', gate: 0, stubborn: false, commits: false, ...request }
  return inside.operations.run({ name: 'testing.work', op: 'testing.work', request: whole, ...options }, runWork)
}

let lastGate = 0
/** A gate that nobody has opened. It is opened when the test ends, so that no worker stays behind. */
export function newGate(): number {
  const gate = ++lastGate
  onTestFinished(() => door.openGate(gate))
  return gate
}

export interface SeenRecord {
  readonly id: HandleId
  readonly kind: number
  readonly flags: number
  readonly number: number
}

/** Hears the records of these handles, in an async context made here. Keeps the loop alive until the test ends. */
export function listen(runtime: Runtime, ids: readonly HandleId[], heard: (record: SeenRecord) => void): void {
  const drain = drainOf(runtime)
  const scope = new AsyncResource('sluicebox-test')
  for (const id of ids) {
    const onRecord = (kind: number, flags: number, _length: number, low: number, high: number) =>
      heard({ id, kind, flags, number: low + high * 2 ** 32 })
    drain.add(id, { generation: generationOf(id), scope, onRecord })
  }
  drain.hold()
  onTestFinished(() => drain.release())
}

/** A flood that is over and forgotten when the test ends. */
export function eventFlood(runtime: Runtime, options: ConstructorParameters<TestDoor['EventFlood']>[1]): EventFlood {
  const flood = new door.EventFlood(coreOf(runtime), options)
  onTestFinished(() => flood.stop())
  return flood
}

export function laneFlood(runtime: Runtime, options: ConstructorParameters<TestDoor['LaneFlood']>[1]): LaneFlood {
  const flood = new door.LaneFlood(coreOf(runtime), options)
  onTestFinished(() => flood.stop())
  return flood
}

/** Lets the event loop turn until `condition` holds. A missed deadline fails with the state that `describe` gives. */
export async function until(condition: () => boolean, describe: () => unknown, deadlineMs = DEADLINE_MS) {
  const deadline = performance.now() + deadlineMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain; state: ${inspect(describe())}`)
    await turn()
  }
}

/** Less than vitest waits for a word of this thread. */
const BLOCKED_MS = 45_000

/** The same with the JS thread blocked: nothing is drained meanwhile. */
export function blockUntil(condition: () => boolean, describe: () => unknown, deadlineMs = BLOCKED_MS): void {
  const deadline = performance.now() + deadlineMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`blocked ${deadlineMs} ms in vain; state: ${inspect(describe())}`)
  }
}

/** The next warning that holds: Node's own come too. */
export function nextWarning(holds: (warning: NodeJS.ErrnoException) => boolean): Promise<Error> {
  return new Promise((resolve) => {
    const onWarning = (warning: Error) => holds(warning) && resolve(warning)
    process.on('warning', onWarning)
    onTestFinished(() => void process.off('warning', onWarning))
  })
}

/** One turn of the event loop, timers and I/O included. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** The reason of a rejection; a promise that resolves, or stays pending, fails the test. */
export async function rejection(promise: Promise<unknown>, deadlineMs = DEADLINE_MS): Promise<unknown> {
  const outcome = await settled(promise, deadlineMs)
  if (outcome.status === 'fulfilled') throw new Error(`expected a rejection, got ${inspect(outcome.value)}`)
  return outcome.reason
}

/** How the promise ended, under a deadline. */
export async function settled<T>(promise: Promise<T>, deadlineMs = DEADLINE_MS): Promise<PromiseSettledResult<T>> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`still pending after ${deadlineMs} ms`)), deadlineMs)
  })
  try {
    const [outcome] = await Promise.race([Promise.allSettled([promise]), late])
    return outcome as PromiseSettledResult<T>
  } finally {
    clearTimeout(timer)
  }
}

/** Numbers from 0 up to 1 that the seed alone decides. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
