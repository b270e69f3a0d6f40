// All operations of one runtime: p-queue bounds how many run, admission waits for room in the native queue, close ends them all.
import PQueue from 'p-queue'
import { RuntimeClosedError } from './errors.js'
import { type Call, Operation, type Surroundings } from './operation.js'

export class Operations {
  readonly #around: Surroundings
  readonly #running: PQueue
  /** One at a time, so that whoever waits for room keeps its place. */
  readonly #admission = new PQueue({ concurrency: 1 })
  readonly #live = new Set<Operation>()
  #waiting: (() => void) | undefined
  #closed = false
  blockedMs = 0

  constructor(concurrency: number, around: Surroundings) {
    this.#around = around
    this.#running = new PQueue({ concurrency })
  }

  /** The native result of the call. Rejects with its typed error, the abort reason, or RUNTIME_CLOSED. */
  run(call: Call, above: (...args: never[]) => unknown): Promise<unknown> {
    if (this.#closed) return Promise.reject(new RuntimeClosedError(call.name, false))
    if (call.signal?.aborted) return Promise.reject(call.signal.reason)
    const operation = new Operation(call, this.#around, above)
    this.#live.add(operation)
    const forget = () => void this.#live.delete(operation)
    operation.settled.then(forget, forget)
    void this.#running.add(async () => {
      await this.#admission.add(() => this.#admit(operation))
      await operation.settled.then(ignore, ignore)
    })
    return operation.settled
  }

  /** Somebody gave slots back: a handle was settled here, or the bell rang for a source that ended. */
  roomMade(): void {
    this.#waiting?.()
  }

  /** Resolves when every operation has settled: by itself, cancelled, or after `timeoutMs` without its worker's answer. */
  async close(timeoutMs: number): Promise<void> {
    this.#closed = true
    const pending = [...this.#live]
    for (const operation of pending) operation.close()
    this.roomMade()
    const timer = setTimeout(() => {
      for (const operation of pending) operation.takeOver()
    }, timeoutMs)
    await Promise.allSettled(pending.map(({ settled }) => settled))
    clearTimeout(timer)
  }

  async #admit(operation: Operation): Promise<void> {
    while (!operation.submit()) {
      const since = performance.now()
      await new Promise<void>((resolve) => {
        this.#waiting = resolve
      })
      this.#waiting = undefined
      this.blockedMs += performance.now() - since
    }
  }
}

const ignore = (): void => {}
