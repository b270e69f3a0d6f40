// One box or execution as the queue knows it: its records, its commands and their answers, and when the native side may forget it.
import { AsyncResource } from 'node:async_hooks'
import { type Drain, generationOf, type Sink } from './drain.js'
import { type HandleId, type NativeError, type News, RECORD } from './native.js'
import { type ErrorContext, fromNative } from './native-errors.js'

export interface HandleOwner {
  readable(lane: number): void
  news(news: News): void
}

export interface HandleSurroundings {
  readonly drain: Drain
  readonly errorNames: ReadonlyMap<number, string>
  /** Those that were not released: close() does. */
  readonly handles: Set<Handle>
}

/** A command that the handle can no longer answer: it was released, or its runtime closed. */
export class HandleGone extends Error {}

interface Pending {
  readonly op: string
  resolve(value: unknown): void
  reject(error: unknown): void
}

export class Handle implements Sink {
  readonly id: HandleId
  readonly generation: number
  readonly scope: AsyncResource
  readonly #around: HandleSurroundings
  readonly #context: ErrorContext
  readonly #pending = new Map<number, Pending>()
  #owner: { deref(): HandleOwner | undefined }
  #fresh = true
  #untold = false
  #released = false
  #releasing = false

  /** To be made in the pass that brings the id, and in the async context of the public method that asked for it. */
  constructor(id: HandleId, name: string, around: HandleSurroundings, owner: HandleOwner, context: ErrorContext) {
    this.id = id
    this.generation = generationOf(id)
    this.scope = new AsyncResource(`sluicebox.${name}`, { requireManualDestroy: true })
    this.#around = around
    this.#context = context
    this.#owner = { deref: () => owner }
    around.drain.add(id, this)
    around.handles.add(this)
    // What happened before its promise has settled is told after: whoever awaited it has subscribed by then.
    this.later(() => {
      this.#fresh = false
      if (this.#untold) this.readNews()
    })
  }

  get isReleased(): boolean {
    return this.#released
  }

  onRecord(kind: number, flags: number): void {
    if (kind === RECORD.readable) this.#owner.deref()?.readable(flags)
    else if (this.#fresh) this.#untold = true
    else this.readNews()
  }

  /** Tells the owner all that happened, without waiting for the record that says so. */
  readNews(): void {
    if (this.#released) return
    this.#untold = false
    for (const news of this.#around.drain.core.news(this.id)) {
      if (news.kind === 'answer') this.#answer(news.request, news.value, news.error)
      else this.#owner.deref()?.news(news)
    }
  }

  /** Rejects with the public error, or with HandleGone. `op` is the public method. */
  command(op: string, verb: string, request: object): Promise<unknown> {
    if (this.#released) return Promise.reject(new HandleGone())
    let number: number
    try {
      number = this.#around.drain.core.command(this.id, verb, request)
    } catch (error) {
      return Promise.reject(this.#public(error as NativeError, op))
    }
    this.#around.drain.hold()
    return new Promise((resolve, reject) => this.#pending.set(number, { op, resolve, reject }))
  }

  /** The public form of a native error of this handle. */
  toError(error: NativeError, op: string): Error {
    return this.#public(error, op)
  }

  /** On a later turn of the event loop, in the handle's own context. */
  later(work: () => void): void {
    setImmediate(() => this.scope.runInAsyncScope(work))
  }

  /** From here on the owner may be collected although records may still come. */
  weaken(): void {
    const owner = this.#owner.deref()
    if (owner) this.#owner = new WeakRef(owner)
  }

  /** Nothing more will be asked of the handle; what was asked and not answered fails with HandleGone. Idempotent. */
  release(): void {
    if (this.#released) return
    this.#released = true
    const { drain, handles } = this.#around
    handles.delete(this)
    drain.remove(this.id)
    try {
      drain.core.release(this.id)
    } catch {
      // The core was shut down, and its handles with it.
    }
    for (const number of [...this.#pending.keys()]) this.#take(number)?.reject(new HandleGone())
    this.scope.emitDestroy()
  }

  /** As release(), once what was asked is answered. */
  releaseWhenAnswered(): void {
    this.#releasing = true
    if (this.#pending.size === 0) this.release()
  }

  #answer(number: number, value: unknown, error: NativeError | undefined): void {
    const pending = this.#take(number)
    if (error === undefined) pending?.resolve(value)
    else pending?.reject(this.#public(error, pending.op))
    if (this.#releasing && this.#pending.size === 0) this.release()
  }

  #take(number: number): Pending | undefined {
    const pending = this.#pending.get(number)
    if (this.#pending.delete(number)) this.#around.drain.release()
    return pending
  }

  #public(error: NativeError, op: string): Error {
    if (typeof error.code !== 'number') return error as unknown as Error
    return fromNative(this.#around.errorNames, error, op, undefined, this.#context)
  }
}
