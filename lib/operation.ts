// One submitted operation from birth to death: waiting, admitted, running, settled once, by whoever claims it first: the drain, an
// abort, or close.
import { AsyncResource } from 'node:async_hooks'
import { setMaxListeners } from 'node:events'
import type { Drain, Sink } from './drain.js'
import { generationOf } from './drain.js'
import { RuntimeClosedError } from './errors.js'
import type { Progress } from './image-types.js'
import { type HandleId, type NativeError, type Outcome, RECORD } from './native.js'
import { type ErrorContext, fromNative, withCallersStack } from './native-errors.js'

export interface Call {
  /** The public method, for messages: 'images.rebase'. */
  readonly name: string
  /** The native operation: 'rebase'. */
  readonly op: string
  readonly request: object
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress<never>) => void
  /**
   * Takes over a handle that the result names, in the very pass that brings it: a later turn would miss the records of that handle.
   * What it returns is the call's result; what it throws, its failure.
   */
  readonly adopt?: (value: unknown) => unknown
  /** How long an abort waits for the operation to unwind. Default: a second. */
  readonly abortGraceMs?: number
  readonly context?: ErrorContext
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
  readonly #trace: { stack?: string } = {}
  generation = 0
  #id: HandleId | undefined
  #done = false
  #stoppedBy: 'abort' | 'close' | undefined
  #grace: NodeJS.Timeout | undefined
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
    around.drain.hold()
    if (call.signal === undefined) return
    // One signal may stop any number of calls; each takes its listener back when it settles, so many are no leak.
    setMaxListeners(0, call.signal)
    call.signal.addEventListener('abort', this.#onAbort, { once: true })
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
      this.#fail(typeof (error as NativeError).code === 'number' ? this.#public(error as NativeError) : error)
      return true
    }
    this.generation = generationOf(this.#id)
    drain.add(this.#id, this)
    return true
  }

  onRecord(kind: number): void {
    if (this.#id === undefined) return
    if (kind === RECORD.progress) this.#tell(this.#id)
    else this.#finish(this.#around.drain.core.claim(this.#id))
  }

  /** Asks the operation to stop for close; what has not begun ends here. */
  close(): void {
    if (this.#done) return
    this.#stoppedBy ??= 'close'
    if (this.#id === undefined) this.#fail(this.#closedError(false))
    else this.#around.drain.core.cancel(this.#id)
  }

  /** Takes the handle from a worker that did not answer: what it brings later is reclaimed natively. */
  takeOver(): void {
    if (!this.#done && this.#id !== undefined) this.#finish(this.#around.drain.core.claim(this.#id))
  }

  readonly #onAbort = (): void => {
    if (this.#done) return
    this.#stoppedBy ??= 'abort'
    if (this.#id === undefined) this.#fail(this.call.signal?.reason)
    // A committed operation reports its success; any other has a moment to leave the image in order and release its lock.
    else if (this.#around.drain.core.cancel(this.#id))
      this.#grace = setTimeout(() => this.takeOver(), this.call.abortGraceMs ?? ABORT_GRACE_MS)
  }

  #finish(outcome: Outcome | null | undefined): void {
    if (outcome === undefined) return
    if (outcome !== null && 'value' in outcome) this.#succeed(outcome.value)
    else this.#fail(this.#reasonFor(outcome?.error))
  }

  #succeed(value: unknown): void {
    try {
      const result = this.call.adopt ? this.call.adopt(value) : value
      this.#settle(() => this.#resolve(result))
    } catch (error) {
      this.#fail(error)
    }
  }

  /** `error` is absent when the handle was taken from a worker that had not answered. */
  #reasonFor(error: NativeError | undefined): unknown {
    if (this.#stoppedBy === 'abort') return this.call.signal?.reason
    const cut = error === undefined || this.#nameOf(error) === 'cancelled'
    return cut ? this.#closedError(true) : this.#public(error)
  }

  #closedError(started: boolean): Error {
    return withCallersStack(new RuntimeClosedError(this.call.name, started), this.#trace)
  }

  #fail(reason: unknown): void {
    this.#settle(() => this.#reject(reason))
  }

  /** The one place where an operation dies. */
  #settle(how: () => void): void {
    this.#done = true
    clearTimeout(this.#grace)
    this.call.signal?.removeEventListener('abort', this.#onAbort)
    const { drain } = this.#around
    if (this.#id !== undefined) drain.remove(this.#id)
    how()
    this.scope.emitDestroy()
    drain.release()
    this.#around.roomMade()
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
    return fromNative(this.#around.errorNames, error, this.call.name, this.#trace, this.call.context)
  }
}
