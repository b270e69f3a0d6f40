// The state of a box as its news tell it: each change once, in order, and an end only after the ends of its executions were told.
import type { BoxState, StopReason } from './box-types.js'
import { SluiceboxError } from './errors.js'
import type { News } from './native.js'
import { makeWaiter, type Waiter, waitTimeout } from './waiter.js'

export type Change = Pick<Extract<News, { kind: 'state' }>, 'state' | 'previous' | 'reason' | 'error'>

export interface StatesHooks {
  readonly boxId: string
  /** Resolves when the end of every execution was told. undefined: there is none. */
  executionsEnded(): Promise<unknown> | undefined
  changed(change: Change): void
  /** In the box's own async context. */
  inScope(work: () => void): void
}

interface StateWaiter extends Waiter<void> {
  readonly states: readonly BoxState[]
}

export class States {
  readonly #hooks: StatesHooks
  readonly #waiters = new Set<StateWaiter>()
  readonly #changes: Change[] = []
  #state: BoxState
  #isHeld = false
  stopReason: StopReason | undefined
  /** How many were told. */
  changes = 0

  constructor(state: BoxState, hooks: StatesHooks) {
    this.#state = state
    this.#hooks = hooks
  }

  get state(): BoxState {
    return this.#state
  }

  tell(change: Change): void {
    this.#changes.push(change)
    this.#apply()
  }

  /** Resolves once the box is in one of these; rejects with BOX_STATE when it can no longer be. */
  reached(op: string, states: readonly BoxState[], timeoutMs?: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason)
    if (states.includes(this.#state)) return Promise.resolve()
    if (this.#state === 'removed') return Promise.reject(this.wrong(op))
    const late = () => waitTimeout(op, timeoutMs as number, this.#hooks.boxId)
    const left = () => this.#waiters.delete(waiter)
    const waiter: StateWaiter = { states, ...makeWaiter<void>({ timeoutMs, signal, late, left }) }
    this.#waiters.add(waiter)
    return waiter.promise
  }

  /** The error of a call that this state does not allow. */
  wrong(op: string, hint?: string): SluiceboxError {
    const { boxId } = this.#hooks
    return new SluiceboxError('BOX_STATE', `${op}: box ${boxId} is ${this.#state}`, { op, boxId, hint })
  }

  /** Nothing will change any more. */
  close(error: Error): void {
    for (const waiter of [...this.#waiters]) waiter.reject(error)
  }

  #apply(): void {
    while (!this.#isHeld) {
      const change = this.#changes[0]
      if (change === undefined) return
      const ended = isEnd(change.state) ? this.#hooks.executionsEnded() : undefined
      if (ended) {
        this.#isHeld = true
        void ended.then(() => {
          this.#isHeld = false
          this.#hooks.inScope(() => this.#apply())
        })
        return
      }
      this.#changes.shift()
      this.#change(change)
    }
  }

  #change(change: Change): void {
    if (change.state === this.#state) return
    const previous = this.#state
    this.#state = change.state
    this.changes++
    if (change.reason) this.stopReason = change.reason
    this.#hooks.changed({ ...change, previous })
    for (const waiter of [...this.#waiters]) {
      if (waiter.states.includes(this.#state)) waiter.resolve()
      else if (this.#state === 'removed') waiter.reject(this.wrong('box.waitForState'))
    }
  }
}

export const isEnd = (state: BoxState): boolean => state === 'stopped' || state === 'failed' || state === 'removed'
