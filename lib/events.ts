// The typed emitter: subscribers get on/once/off; only this library emits. A throwing listener stops nobody else.

import { inspect } from 'node:util'
import { InvalidArgumentError } from './errors.js'

/** An event map: each event's name to the tuple of its arguments. */
export type EventMap<M> = { [K in keyof M]: unknown[] }
type Listener<A extends unknown[]> = (...args: A) => void
type Callee = Listener<unknown[]>

/** Where a listener's throw is reported: the runtime counts it and emits `listenerError`. */
export type ListenerFailure = (error: unknown, event: { target: string; name: string }) => void

/** What was given to once(), by what is called in its place. */
const originals = new WeakMap<Callee, unknown>()

/** The public half of the emitter: subscribe only, no emit(). */
export abstract class TypedEvents<M extends EventMap<M>> {
  /** A change replaces an event's list: an emit() that is under way goes on with the list it began with. */
  readonly #listeners: Record<string, readonly Callee[] | undefined> = Object.create(null)
  readonly #target: string
  readonly #failed: ListenerFailure

  /** @internal */
  protected constructor(target: string, failed: ListenerFailure) {
    this.#target = target
    this.#failed = failed
  }

  /** Calls `fn` at every `event` from now on, in the order of subscription. */
  on<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    return this.#add(event, this.#checked(fn, 'on'))
  }

  /** Calls `fn` at the next `event` only. */
  once<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    const original = this.#checked(fn, 'once')
    const first = (...args: unknown[]): void => {
      this.#remove(event, first)
      original.apply(this, args)
    }
    originals.set(first, original)
    return this.#add(event, first)
  }

  /** Removes one subscription of `fn`, the latest; does nothing when there is none. */
  off<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    const callee = this.#listeners[event]?.findLast((each) => (originals.get(each) ?? each) === fn)
    return callee ? this.#remove(event, callee) : this
  }

  /** The same as off(). */
  removeListener<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    return this.off(event, fn)
  }

  listenerCount(event: keyof M & string): number {
    return this.#listeners[event]?.length ?? 0
  }

  /** False when nobody listens. @internal */
  protected emit<K extends keyof M & string>(event: K, ...args: M[K]): boolean {
    const listeners = this.#listeners[event]
    if (listeners === undefined) return false
    let next = 0
    // One `try` for all of them, entered again after a throw; a single argument, the usual case, is handed on without an array.
    while (next < listeners.length) {
      try {
        if (args.length === 1) {
          const only = args[0]
          while (next < listeners.length) (listeners[next++] as Callee).call(this, only)
        } else {
          while (next < listeners.length) (listeners[next++] as Callee).apply(this, args)
        }
      } catch (error) {
        this.#failed(error, { target: this.#target, name: event })
      }
    }
    return true
  }

  #checked(fn: unknown, method: string): Callee {
    if (typeof fn === 'function') return fn as Callee
    throw new InvalidArgumentError('fn', `a function, got ${inspect(fn)}`, `${this.#target}.${method}`)
  }

  #add(event: string, callee: Callee): this {
    this.#listeners[event] = [...(this.#listeners[event] ?? []), callee]
    return this
  }

  #remove(event: string, callee: Callee): this {
    const listeners = this.#listeners[event] ?? []
    const at = listeners.lastIndexOf(callee)
    if (at >= 0) this.#listeners[event] = listeners.length > 1 ? listeners.toSpliced(at, 1) : undefined
    return this
  }
}
