// The one loop that drains the native queue. A pass is one batch of records, cut short when its time is spent, and goes on from a
// later turn of the event loop, so that timers and I/O run between passes.
import type { AsyncResource } from 'node:async_hooks'
import { performance } from 'node:perf_hooks'
import { BATCH_RECORDS, type Core, type CoreOptions, loadAddon, RECORD_WORDS } from './native.js'

/** Whoever takes the records of one handle. */
export interface Sink {
  /** Guards against a record of an older handle in the same slot. */
  readonly generation: number
  /** The async context of the public method that made the handle. */
  readonly scope: AsyncResource
  onRecord(kind: number, flags: number, length: number, low: number, high: number): void
}

/** A handle's id as one safe integer: 32 bits of generation above 21 bits of slot. */
export const SLOT_LIMIT = 2 ** 21
export const slotOf = (id: number): number => id % SLOT_LIMIT
export const generationOf = (id: number): number => Math.floor(id / SLOT_LIMIT)

const PASS_BUDGET_MS = 1
const CLOCK_EVERY = 16
/** While events take longer than this (16 of them, 250 µs), each is followed by a look at the clock. */
const SLOW_EVENT_MS = 0.25 / CLOCK_EVERY

export interface DrainStats {
  passes: number
  events: number
  longestMs: number
}

/** What hears of every pass, with how full the queue was when it began, and of the look that found nothing more. */
export type AfterPass = (depth: number) => void

export class Drain {
  readonly core: Core
  readonly stats: DrainStats = { passes: 0, events: 0, longestMs: 0 }
  readonly #records = new Uint32Array(BATCH_RECORDS * RECORD_WORDS)
  readonly #sinks: (Sink | undefined)[] = []
  readonly #afterPass: AfterPass
  #next = 0
  #count = 0
  #deadline = 0
  /** How many events until the next look at the clock. Outlives the pass: slow listeners are slow in the next one too. */
  #stride = CLOCK_EVERY
  #strideLeft = 0
  #strideStart = 0
  #strideFirst = 0
  #dispatching = false
  #held = 0

  constructor(options: CoreOptions, afterPass: AfterPass) {
    this.#afterPass = afterPass
    this.core = new (loadAddon().addon.Core)(options, this.#records, (count) => this.#begin(count))
  }

  add(id: number, sink: Sink): void {
    this.#sinks[slotOf(id)] = sink
  }

  remove(id: number): void {
    const slot = slotOf(id)
    if (this.#sinks[slot]?.generation === generationOf(id)) this.#sinks[slot] = undefined
  }

  /** The loop lives as long as somebody holds it. */
  hold(): void {
    if (this.#held++ === 0) this.core.hold(true)
  }

  release(): void {
    if (--this.#held === 0) this.core.hold(false)
  }

  /** The queue was closed for good: what is left of the batch in hand goes the way of what was left in the queue. */
  discard(): void {
    this.#next = this.#count
  }

  /** Rung by the bell, with the first batch already in the buffer; an empty one means that room was made in the queue. */
  #begin(count: number): void {
    this.#next = 0
    this.#count = count
    if (count > 0) this.#pass()
    else this.#afterPass(0)
  }

  readonly #pass = (): void => {
    // A listener that spins the loop itself must not start a second pass inside the first.
    if (this.#dispatching) return
    if (this.#next === this.#count) {
      this.#next = 0
      this.#count = this.core.take()
    }
    if (this.#count === 0) {
      this.#afterPass(0)
      return
    }
    this.#dispatching = true
    const start = performance.now()
    this.#deadline = start + PASS_BUDGET_MS
    this.#beginStride(start)
    const first = this.#next
    const depth = this.core.depth() + this.#count - first
    try {
      this.#dispatch()
    } finally {
      this.#dispatching = false
      this.stats.passes++
      this.stats.events += this.#next - first
      const now = performance.now()
      this.#measureStride(now)
      this.stats.longestMs = Math.max(this.stats.longestMs, now - start)
      // The bell stays silent until a take gives nothing, which is for that later turn to find out. It is referenced whoever holds the
      // loop: one that sleeps on a timer of the program's own would not come to an unreferenced turn, nor hear a bell.
      setImmediate(this.#pass)
      this.#afterPass(depth)
    }
  }

  /** Until the batch or the time is spent. */
  #dispatch(): void {
    while (this.#next < this.#count) {
      const sink = this.#sinks[this.#records[this.#next * RECORD_WORDS + 1] as number]
      if (sink === undefined) this.#next++
      else sink.scope.runInAsyncScope(this.#deliver, this, sink)
      if (this.#strideLeft <= 0 && this.#spent()) return
    }
  }

  /** Delivers the records of one handle that stand together, so that its async context is entered once for them. */
  #deliver(sink: Sink): void {
    const records = this.#records
    let at = this.#next * RECORD_WORDS
    const slot = records[at + 1] as number
    do {
      this.#next++
      this.#strideLeft--
      // A listener may have removed the sink, or a newer handle taken its slot.
      if (records[at + 2] === sink.generation && this.#sinks[slot] === sink) {
        const head = records[at] as number
        sink.onRecord(
          head & 0xff,
          (head >>> 8) & 0xff,
          records[at + 3] as number,
          records[at + 4] as number,
          records[at + 5] as number,
        )
      }
      at = this.#next * RECORD_WORDS
    } while (this.#strideLeft > 0 && this.#next < this.#count && records[at + 1] === slot)
  }

  #spent(): boolean {
    const now = performance.now()
    this.#measureStride(now)
    this.#beginStride(now)
    return now >= this.#deadline
  }

  #beginStride(now: number): void {
    this.#strideLeft = this.#stride
    this.#strideStart = now
    this.#strideFirst = this.#next
  }

  /** Also of a stride that the end of the batch cut short. */
  #measureStride(now: number): void {
    const events = this.#next - this.#strideFirst
    if (events > 0) this.#stride = now - this.#strideStart > events * SLOW_EVENT_MS ? 1 : CLOCK_EVERY
  }
}
