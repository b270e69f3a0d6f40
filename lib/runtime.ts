// The runtime: one event queue, its workers, and the images worked on with them.
import { setTimeout as sleep } from 'node:timers/promises'
import { Drain } from './drain.js'
import { fromNative, RuntimeClosedError } from './errors.js'
import { TypedEvents } from './events.js'
import type { DiskFormat, ImageOp, Images, RebaseOptions, RebaseResult } from './image-types.js'
import { ImageOperations } from './images.js'
import { type Core, loadAddon, type NativeError } from './native.js'
import type { Call } from './operation.js'
import { Operations } from './operations.js'
import { type RuntimeOptions, readCloseOptions, readOptions, readRuntimeOptions, readSignal } from './options.js'

export interface RuntimeStats {
  queue: {
    /** Events waiting now. */
    depth: number
    capacity: number
    /** Payload bytes held now: the same as lanes.bytes. */
    bytes: number
    highWater: number
    /** Always 0. */
    dropped: number
    /** How long the call next in line waited for room in the queue, in total. Those behind it are not added. */
    blockedMs: number
    wakeups: number
  }
  lanes: { open: number; bytes: number; stalled: number }
  drain: { passes: number; events: number; longestMs: number; listenerErrors: number }
  handles: { live: number; claimed: number; finalized: number }
}

export type ImageLifecycleEvent = {
  type: 'started' | 'finished' | 'failed'
  op: ImageOp
  path: string
  at: Date
  /** With 'failed': what the call rejected with. A SluiceboxError, or the reason of its signal, which may be anything. */
  error?: unknown
}

export interface RuntimeEvents {
  /** 'started' when a call was let into the queue, then one of the others. A call that ends before that is not told of. */
  image: [event: ImageLifecycleEvent]
  pressure: [event: { depth: number; capacity: number; state: 'high' | 'normal' }]
  /** A listener threw inside the drain loop. Without a listener here it becomes an uncaught exception. */
  listenerError: [error: unknown, event: { target: string; name: string }]
  close: []
}

export interface DoctorReport {
  ok: boolean
  node: string
  addon: { version: string; abi: number; path: string }
  formats: Record<DiskFormat, { create: boolean; read: boolean; write: boolean; rebase: boolean }>
  problems: { code: string; message: string; fix?: string }[]
}

/** Above it the queue is under pressure, below the second no longer: the gap keeps the state from flickering. */
const PRESSURE_HIGH = 0.75
const PRESSURE_NORMAL = 0.5

/** How long closing waits for worker threads once every promise has settled. */
const JOIN_MS = 1000

export class Runtime extends TypedEvents<RuntimeEvents> implements AsyncDisposable {
  readonly images: Images
  /** State directory. */
  readonly home: string
  readonly #drain: Drain
  readonly #operations: Operations
  readonly #images: ImageOperations
  #listenerErrors = 0
  #pressure: 'high' | 'normal' = 'normal'
  #referenced = false
  #closing: Promise<void> | undefined

  /** @throws INVALID_ARGUMENT, ADDON_LOAD, INTERNAL when the system gives no thread */
  constructor(options?: RuntimeOptions) {
    const settings = readRuntimeOptions(options)
    super('runtime', (error, event) => this.#listenerFailed(error, event))
    this.home = settings.home
    const errorNames = new Map(loadAddon().addon.errorCodes)
    try {
      this.#drain = new Drain(settings, (depth) => this.#afterPass(depth, settings.maxEvents))
    } catch (error) {
      throw typeof (error as NativeError).code === 'number'
        ? fromNative(errorNames, error as NativeError, 'new Runtime')
        : error
    }
    this.#operations = new Operations(settings.imageConcurrency, {
      drain: this.#drain,
      errorNames,
      listenerFailed: (error, event) => this.#listenerFailed(error, event),
      roomMade: () => this.#operations.roomMade(),
    })
    this.#images = new ImageOperations((op, path, call, above) => this.#runImage(op, path, call, above))
    this.images = this.#images
    endWithProcess(this.#drain.core)
    internals.set(this, { drain: this.#drain, operations: this.#operations })
  }

  /** Moves an overlay to another backing image without changing what a guest reads: the same as images.rebase. */
  rebase(target: string, options: RebaseOptions): Promise<RebaseResult> {
    return this.#images.rebaseAs('rebase', target, options, this.rebase)
  }

  /** What this host and this build can do. */
  async doctor(options?: { signal?: AbortSignal }): Promise<DoctorReport> {
    const signal = readSignal('doctor', readOptions('doctor', options, ['signal']).signal)
    if (signal?.aborted) throw signal.reason
    if (this.#closing) throw new RuntimeClosedError('doctor', false)
    const { addon, path } = loadAddon()
    const built = { create: true, read: true, write: true }
    return {
      ok: true,
      node: process.version,
      addon: { version: addon.version, abi: addon.abi, path },
      formats: { raw: { ...built, rebase: false }, qcow2: { ...built, rebase: true } },
      problems: [],
    }
  }

  /** Counters of this moment; after close, the last ones. */
  stats(): RuntimeStats {
    const { lanes, handles, ...queue } = this.#drain.core.stats()
    return {
      queue: { ...queue, blockedMs: this.#operations.blockedMs },
      lanes,
      drain: { ...this.#drain.stats, listenerErrors: this.#listenerErrors },
      handles,
    }
  }

  /** Keeps the process alive until unref() or close(). */
  ref(): this {
    if (this.#referenced || this.#closing) return this
    this.#referenced = true
    this.#drain.hold()
    return this
  }

  /** Undoes ref(): only pending calls keep the process alive. */
  unref(): this {
    if (this.#referenced) this.#drain.release()
    this.#referenced = false
    return this
  }

  /**
   * Refuses new calls, cancels those in flight, waits for them (at most `timeoutMs`, default 10,000), and ends the workers. Every
   * pending promise settles: with its true result, or RUNTIME_CLOSED. Idempotent; safe from inside a callback.
   */
  close(options?: { timeoutMs?: number }): Promise<void> {
    try {
      const { timeoutMs } = readCloseOptions(options)
      this.#closing ??= this.#close(timeoutMs)
      return this.#closing
    } catch (error) {
      return Promise.reject(error)
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(timeoutMs: number): Promise<void> {
    const { core } = this.#drain
    core.beginClose()
    await this.#operations.close(timeoutMs)
    this.unref()
    core.shutdown(0)
    this.#drain.discard()
    if (!(await ended(core))) {
      process.emitWarning('a worker is stuck in a system call; its operation was settled and its thread left behind', {
        type: 'SluiceboxWarning',
      })
    }
    live.delete(core)
    this.emit('close')
  }

  async #runImage(op: ImageOp, path: string, call: Call, above: (...args: never[]) => unknown): Promise<unknown> {
    if (this.#closing) throw new RuntimeClosedError(call.name, false)
    let started = false
    const onStart = () => {
      started = true
      this.emit('image', { type: 'started', op, path, at: new Date() })
    }
    try {
      const value = await this.#operations.run({ ...call, onStart }, above)
      this.emit('image', { type: 'finished', op, path, at: new Date() })
      return value
    } catch (error) {
      if (started) this.emit('image', { type: 'failed', op, path, at: new Date(), error })
      throw error
    }
  }

  #afterPass(depth: number, capacity: number): void {
    this.#operations?.roomMade()
    const state =
      depth >= capacity * PRESSURE_HIGH ? 'high' : depth <= capacity * PRESSURE_NORMAL ? 'normal' : this.#pressure
    if (state === this.#pressure) return
    this.#pressure = state
    this.emit('pressure', { depth, capacity, state })
  }

  #listenerFailed(error: unknown, event: { target: string; name: string }): void {
    this.#listenerErrors++
    const heard = event.name !== 'listenerError' && this.listenerCount('listenerError') > 0
    if (heard) this.emit('listenerError', error, event)
    else queueMicrotask(() => throwUncaught(error))
  }
}

function throwUncaught(error: unknown): never {
  throw error
}

/** Looks whether the workers have ended, from later turns of the loop, which a join that waits would stop. False: one is stuck. */
async function ended(core: Core): Promise<boolean> {
  const deadline = performance.now() + JOIN_MS
  for (let pause = 1; !core.shutdown(0); pause = Math.min(2 * pause, 32)) {
    if (performance.now() >= deadline) return false
    await sleep(pause)
  }
  return true
}

// process.exit() runs no cleanup hook of the addon: without this a worker would still run while the process's memory is torn down.
const live = new Set<Core>()
let exitHooked = false

function endWithProcess(core: Core): void {
  live.add(core)
  if (exitHooked) return
  exitHooked = true
  process.on('exit', () => {
    // All are told to end before the first is waited for: together they take the time of one.
    for (const each of live) each.shutdown(0)
    const deadline = performance.now() + JOIN_MS
    for (const each of live) each.shutdown(Math.max(0, deadline - performance.now()))
  })
}

/** What is behind a runtime, for the tests' own producers. @internal */
export const internals = new WeakMap<Runtime, { drain: Drain; operations: Operations }>()
