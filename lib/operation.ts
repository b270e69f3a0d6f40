// One submitted operation from birth to death: waiting, admitted, running, settled once, by whoever claims it first: the drain, an
// abort, or close.
import { AsyncResource } from 'node:async_hooks'
import { whenAborted } from './abort.js'
import type { Drain, Sink } from './drain.js'
import { generationOf } from './drain.js'
import { fromNative, RuntimeClosedError, SluiceboxError, type Trace, withCallersStack } from './errors.js'
import type { Progress } from './image-types.js'
import { type HandleId, type NativeError, type Outcome, RECORD } from './native.js'

export interface Call {
  /** The public method, for messages: 'images.rebase'. */
  readonly name: string
  /** The native operation: 'rebase'. */
  readonly op: string
  readonly request: object
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress<never>) => void
  /** The queue has let it in: it runs, or will as soon as a worker is free. Not called for what ends before. */
  readonly onStart?: () => void
}

/** What an operation needs of the house around it. */
export interface Surroundings {
  readonly drain: Drain
  readonly errorNames: ReadonlyMap<number, string>
  listenerFailed(error: unknown, event: { target: string; name: string }): void
  /** Slots were given back: whoever waits for room may try again. */
  roomMade(): void
}

/** How long an aborted operation may take to unwind before its handle is taken from it. */
const ABORT_GRACE_MS = 1000

export class Operation implements Sink {
  readonly scope: AsyncResource
  readonly call: Call
  readonly settled: Promise<unknown>
  readonly #around: Surroundings
  readonly #startedAt = performance.now()
  readonly #trace: Trace = {}
  generation = 0
  #id: HandleId | undefined
  #done = false
  #stoppedBy: 'abort' | 'close' | undefined
  #grace: NodeJS.Timeout | undefined
  readonly #forgetSignal: (() => void) | undefined
  #resolve!: (value: unknown) => void
  #reject!: (reason: unknown) => void

  /** `above`: the public method, whose callers the stack of an error should show. */
  constructor(call: Call, around: Surroundings, above: (...args: never[]) => unknown) {
    this.scope = new AsyncResource(`sluicebox.${call.name}`, { requireManualDestroy: true })
    this.call = call
    this.#around = around
    Error.captureStackTrace(this.#trace, above)
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#forgetSignal = call.signal && whenAborted(call.signal, this.#onAbort)
    // Last: what was held before a throw nobody would release.
    around.drain.hold()
  }

  get isDone(): boolean {
    return this.#done
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedAt
  }

  /** False when the queue has no room: try again when some was made. */
  submit(): boolean {
    if (this.#done) return true
    const { drain } = this.#around
    try {
      this.#id = drain.core.submit(this.call.op, this.call.request, this.call.onProgress !== undefined)
    } catch (error) {
      if (this.#nameOf(error as NativeError) === 'queue_full') return false
      this.#fail(() => (typeof (error as NativeError).code === 'number' ? this.#public(error as NativeError) : error))
      return true
    }
    this.generation = generationOf(this.#id)
    drain.add(this.#id, this)
    if (this.call.onStart) this.scope.runInAsyncScope(this.call.onStart)
    return true
  }

  onRecord(kind: number): void {
    if (this.#id === undefined) return
    if (kind === RECORD.progress) this.#tell(this.#id)
    else this.#claim(this.#id)
  }

  /** Asks the operation to stop for close; what has not begun ends here. */
  close(): void {
    if (this.#done) return
    this.#stoppedBy ??= 'close'
    if (this.#id === undefined) this.#fail(() => this.#closedError(false))
    else this.#around.drain.core.cancel(this.#id)
  }

  /** Takes the handle from a worker that did not answer: what it brings later is reclaimed natively. */
  takeOver(): void {
    if (!this.#done && this.#id !== undefined) this.#claim(this.#id)
  }

  readonly #onAbort = (): void => {
    if (this.#done) return
    if (this.#id === undefined) {
      this.#fail(() => this.call.signal?.reason)
      return
    }
    // Too late for one that has committed: it reports how that ended, which may be an error that the program must hear of.
    if (!this.#around.drain.core.cancel(this.#id)) return
    this.#stoppedBy ??= 'abort'
    // A moment to leave the image in order and release its lock.
    this.#grace = setTimeout(() => this.takeOver(), ABORT_GRACE_MS)
  }

  #claim(id: HandleId): void {
    let outcome: Outcome | null | undefined
    try {
      outcome = this.#around.drain.core.claim(id)
    } catch (error) {
      // Won, but its payload became no JavaScript value.
      this.#fail(() => error)
    }
    if (outcome === undefined) return
    if (outcome !== null && 'value' in outcome) this.#settle(() => this.#resolve(outcome.value))
    else this.#fail(() => this.#reasonFor(outcome?.error))
  }

  /** `error` is absent when the worker gave no answer: the handle was taken from it, or it had no memory for one. */
  #reasonFor(error: NativeError | undefined): unknown {
    if (this.#stoppedBy === 'abort') return this.call.signal?.reason
    if (error !== undefined && this.#nameOf(error) !== 'cancelled') return this.#public(error)
    return this.#stoppedBy === 'close' ? this.#closedError(true) : this.#lostError()
  }

  #closedError(started: boolean): Error {
    return withCallersStack(new RuntimeClosedError(this.call.name, started), this.#trace)
  }

  #lostError(): Error {
    const message = `${this.call.name}: the operation was lost: there was no thread, or no memory, to run it or to answer`
    return withCallersStack(
      new SluiceboxError('INTERNAL', message, {
        op: this.call.name,
        hint: 'Check the memory and thread limits of the process.',
      }),
      this.#trace,
    )
  }

  /** Making the reason may run code that throws (a signal's getter, a program's stack formatter): that is the reason then. */
  #fail(makeReason: () => unknown): void {
    let reason: unknown
    try {
      reason = makeReason()
    } catch (error) {
      reason = error
    }
    this.#settle(() => this.#reject(reason))
  }

  /** The one place where an operation dies. */
  #settle(how: () => void): void {
    this.#done = true
    clearTimeout(this.#grace)
    const { drain } = this.#around
    if (this.#id !== undefined) drain.remove(this.#id)
    how()
    this.scope.emitDestroy()
    drain.release()
    this.#around.roomMade()
    this.#forgetSignal?.()
  }

  #tell(id: HandleId): void {
    const state = this.#around.drain.core.progress(id)
    if (state === undefined) return
    try {
      this.call.onProgress?.({ ...state, elapsedMs: this.elapsedMs } as Progress<never>)
    } catch (error) {
      this.#around.listenerFailed(error, { target: this.call.name, name: 'onProgress' })
    }
  }

  #nameOf(error: NativeError): string | undefined {
    return this.#around.errorNames.get(error.code)
  }

  #public(error: NativeError): Error {
    return fromNative(this.#around.errorNames, error, this.call.name, this.#trace)
  }
}
