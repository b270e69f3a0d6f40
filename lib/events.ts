// The typed emitter: subscribers get on/once/off; only this library emits. A throwing listener stops nobody else.
// eventemitter3 keeps the listeners; calling them is ours, because its emit() would stop at the first throw, and a guard around each
// listener would cost twice what the call does. What a listener causes to be emitted is told when the event at hand has been: every
// listener hears all events in one order.

import { AsyncResource } from 'node:async_hooks'
import { inspect } from 'node:util'
import { EventEmitter } from 'eventemitter3'
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
  readonly #emitter = new EventEmitter()
  /** The emitter's lists as they are now. A change replaces a list: an emit() that is under way goes on with the one it began with. */
  readonly #lists: Record<string, readonly Callee[] | undefined> = Object.create(null)
  readonly #target: string
  readonly #failed: ListenerFailure
  #emitting = false
  /** What was emitted by listeners, in its order. */
  readonly #later: (() => void)[] = []

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
    let fired = false
    const first = (...args: unknown[]): void => {
      // An event that was on its way already when this one was told finds it in its list still.
      if (fired) return
      fired = true
      this.#remove(event, first)
      original.apply(this, args)
    }
    originals.set(first, original)
    return this.#add(event, first)
  }

  /** Removes one subscription of `fn`, the latest; does nothing when there is none. */
  off<K extends keyof M & string>(event: K, fn: Listener<M[K]>): this {
    const callee = this.#lists[event]?.findLast((each) => (originals.get(each) ?? each) === fn)
    return callee ? this.#remove(event, callee) : this
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
    const listeners = this.#lists[event]
    if (listeners === undefined) return false
    if (this.#emitting) {
      this.#later.push(this.#postponed(event, listeners, args))
      return true
    }
    this.#emitting = true
    try {
      this.#tell(event, listeners, args)
      for (let tell = this.#later.shift(); tell; tell = this.#later.shift()) tell()
    } finally {
      this.#emitting = false
    }
    return true
  }

  /** In the async context that emitted it, to those who listened then and still do. */
  #postponed(event: string, listeners: readonly Callee[], args: unknown[]): () => void {
    const scope = new AsyncResource('sluicebox.event')
    return () => {
      const now = this.#lists[event]
      const left = now === listeners ? listeners : listeners.filter((each) => now?.includes(each))
      scope.runInAsyncScope(() => this.#tell(event, left, args))
    }
  }

  #tell(event: string, listeners: readonly Callee[], args: unknown[]): void {
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
  }

  #checked(fn: unknown, method: string): Callee {
    if (typeof fn === 'function') return fn as Callee
    throw new InvalidArgumentError('fn', `a function, got ${inspect(fn)}`, `${this.#target}.${method}`)
  }

  #add(event: string, callee: Callee): this {
    this.#emitter.on(event, callee)
    return this.#changed(event)
  }

  /** One subscription; the emitter's own off() would end all of the same function. */
  #remove(event: string, callee: Callee): this {
    const before = this.#emitter.listeners(event) as Callee[]
    this.#emitter.removeAllListeners(event)
    for (const each of before.toSpliced(before.lastIndexOf(callee), 1)) this.#emitter.on(event, each)
    return this.#changed(event)
  }

  #changed(event: string): this {
    const listeners = this.#emitter.listeners(event) as Callee[]
    this.#lists[event] = listeners.length > 0 ? listeners : undefined
    return this
  }
}
