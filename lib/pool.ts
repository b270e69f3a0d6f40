// Boxes made ahead of need: each is handed to one caller, once, and the next is made behind it.
import type { Box } from './box.js'
import { SluiceboxError } from './errors.js'
import type { Cancellable } from './image-types.js'
import { bad, readOptions, readSignal } from './options.js'
import { readLabels } from './options-box.js'
import { readEnv } from './options-exec.js'
import { makeWaiter, type Waiter } from './waiter.js'

export interface AcquireOptions extends Cancellable {
  /** Over the pool's. */
  env?: Record<string, string>
  labels?: Record<string, string>
}

/** What a pool needs of its runtime. */
export interface PoolHome {
  create(): Promise<Box>
  /** A promise that somebody may wait for keeps the process alive. */
  held<T>(promise: Promise<T>): Promise<T>
  forget(pool: BoxPool): void
}

export class BoxPool implements AsyncDisposable {
  /** How many boxes are kept ready. */
  readonly size: number
  readonly #home: PoolHome
  readonly #ready: Box[] = []
  readonly #waiting: Waiter<Box>[] = []
  readonly #making = new Set<Promise<void>>()
  #closing: Promise<void> | undefined

  /** Runtime.pool() makes them. @internal */
  constructor(size: number, home: PoolHome) {
    this.size = size
    this.#home = home
  }

  /** Boxes that acquire() would hand over at once. */
  get ready(): number {
    return this.#ready.length
  }

  /** Until it is full for the first time; a box that cannot be made is why there is no pool. @internal */
  async fill(): Promise<void> {
    const made = await Promise.allSettled(Array.from({ length: this.size }, () => this.#make()))
    const failed = made.find((each) => each.status === 'rejected')
    if (!failed) return
    await this.close()
    throw failed.reason
  }

  /** A running box that nobody had before, the caller's from now on. Waits where none is ready; rejects when none can be made. */
  async acquire(options?: AcquireOptions): Promise<Box> {
    const op = 'pool.acquire'
    const read = readOptions(op, options, ['env', 'labels', 'signal'])
    const signal = readSignal(op, read.signal)
    const env = readEnv(op, read.env, false) as Record<string, string>
    const labels = readLabels(op, read.labels)
    signal?.throwIfAborted()
    if (this.#closing) throw this.#closed(op)
    const box = await this.#home.held(this.#next(signal))
    if (Object.keys(env).length + Object.keys(labels).length > 0) await box.configure({ env, labels })
    return box
  }

  /** Removes every box that was not handed over. Those that were are their owners'. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    for (const waiter of this.#waiting.splice(0)) waiter.reject(this.#closed('pool.acquire'))
    await Promise.allSettled(this.#making)
    await Promise.allSettled(this.#ready.splice(0).map((box) => box.remove({ force: true })))
    this.#home.forget(this)
  }

  #closed(op: string): SluiceboxError {
    return new SluiceboxError('BOX_STATE', `${op}: the pool is closed`, { op })
  }

  #next(signal: AbortSignal | undefined): Promise<Box> {
    const box = this.#ready.shift()
    if (box) {
      this.#refill()
      return Promise.resolve(box)
    }
    const left = () => {
      const at = this.#waiting.indexOf(waiter)
      if (at >= 0) this.#waiting.splice(at, 1)
    }
    const waiter: Waiter<Box> = makeWaiter<Box>({ signal, left })
    this.#waiting.push(waiter)
    this.#refill()
    return waiter.promise
  }

  /** As many under way as are missing: for those who wait, and for those who will. */
  #refill(): void {
    const missing = () => this.size + this.#waiting.length - this.#ready.length - this.#making.size
    while (!this.#closing && missing() > 0 && this.#making.size < this.size) {
      const making: Promise<void> = this.#make().then(
        () => this.#made(making, true),
        (error) => {
          // The one who has waited longest is told. Where nobody waits, the next acquire() tries again.
          this.#waiting.shift()?.reject(error)
          this.#made(making, this.#waiting.length > 0)
        },
      )
      this.#making.add(making)
    }
  }

  #made(making: Promise<void>, goOn: boolean): void {
    this.#making.delete(making)
    if (goOn) this.#refill()
  }

  async #make(): Promise<void> {
    const box = await this.#home.create()
    const waiter = this.#closing ? undefined : this.#waiting.shift()
    if (waiter) return waiter.resolve(box)
    this.#ready.push(box)
    // One that ends while it waits is of no use to anybody.
    box.on('state', () => {
      const at = this.#ready.indexOf(box)
      if (at < 0 || box.state === 'running') return
      this.#ready.splice(at, 1)
      this.#refill()
    })
    box.on('error', () => {})
  }
}

export function readPoolSize(op: string, size: unknown): number {
  if (typeof size !== 'number' || !Number.isInteger(size) || size < 1 || size > 1024)
    throw bad(op, 'size', 'an integer from 1 to 1024', size)
  return size
}
