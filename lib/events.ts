// The typed emitter: subscribers get on/once/off; only this library emits. A throwing listener stops nobody else.

import { inspect } from 'node:util'
import { EventEmitter } from 'eventemitter3'
import { InvalidArgumentError } from './errors.js'

/** An event map: each event's name to the tuple of its arguments. */
export type EventMap<M> = { [K in keyof M]: unknown[] }
type Listener<A extends unknown[]> = (...args: A) => void
type Guard = Listener<unknown[]> & { original: unknown }

/** Where a listener's throw is reported: the runtime counts it and emits `listenerError`. */
export type ListenerFailure = (error: unknown, event: { target: string; name: string }) => void

/** The public half of the emitter: subscribe only, no emit(). */
export abstract class TypedEvents<M extends EventMap<M>> {
  readonly #emitter = new EventEmitter()
  readonly #target: string
  readonly #failed: ListenerFailure

  /** @internal */
  protected constructor(target: string, failed: ListenerFailure) {
    this.#target = target
    this.#failed = failed
  }

  /** Calls `fn` at every `event` from now on, in the order of subscription. */
  on<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    this.#emitter.on(event, this.#guard(event, fn, 'on'))
    return this
  }

  /** Calls `fn` at the next `event` only. */
  once<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    this.#emitter.once(event, this.#guard(event, fn, 'once'))
    return this
  }

  /** Removes one subscription of `fn`, the latest; does nothing when there is none. */
  off<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    const guard = (this.#emitter.listeners(event) as Guard[]).findLast(({ original }) => original === fn)
    if (guard) this.#emitter.off(event, guard)
    return this
  }

  /** The same as off(). */
  removeListener<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    return this.off(event, fn)
  }

  listenerCount(event: keyof M & string): number {
    return this.#emitter.listenerCount(event)
  }

  /** False when nobody listens. @internal */
  protected emit<K extends keyof M & string>(event: K, ...args: M[K]): boolean {
    // One argument, the usual case, is handed on without an array.
    return args.length === 1 ? this.#emitter.emit(event, args[0]) : this.#emitter.emit(event, ...args)
  }

  /** Wrapped once, when subscribed: emitting then costs one try a listener, and no lookup. */
  #guard(event: string, fn: unknown, method: string): Guard {
    if (typeof fn !== 'function') {
      throw new InvalidArgumentError('fn', `a function, got ${inspect(fn)}`, `${this.#target}.${method}`)
    }
    const guard = (...args: unknown[]): void => {
      try {
        fn.apply(this, args)
      } catch (error) {
        this.#failed(error, { target: this.#target, name: event })
      }
    }
    return Object.assign(guard, { original: fn })
  }
}
