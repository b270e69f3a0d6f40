// A promise that ends in one of three ways, each of which undoes the other two: its giver settles it, its signal is aborted, or its
// time runs out.
import { SluiceboxError } from './errors.js'

export interface Waiter<T> {
  readonly promise: Promise<T>
  resolve(value: T): void
  reject(error: unknown): void
}

export interface WaiterOptions {
  readonly signal?: AbortSignal
  readonly timeoutMs?: number
  /** What the time running out is. */
  late?(): Error
  /** Once, whatever the end. */
  left?(): void
}

export function makeWaiter<T>({ signal, timeoutMs, late, left }: WaiterOptions): Waiter<T> {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((...settlers) => {
    ;[resolve, reject] = settlers
  })
  let timer: NodeJS.Timeout | undefined
  const leave = () => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    left?.()
  }
  const waiter: Waiter<T> = {
    promise,
    resolve(value) {
      leave()
      resolve(value)
    },
    reject(error) {
      leave()
      reject(error)
    },
  }
  const abort = () => waiter.reject(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  if (timeoutMs !== undefined) timer = setTimeout(() => waiter.reject(late?.()), timeoutMs)
  // Once the caller has the waiter in its hands.
  if (signal?.aborted) queueMicrotask(abort)
  return waiter
}

export function waitTimeout(op: string, timeoutMs: number, boxId?: string): SluiceboxError {
  return new SluiceboxError('WAIT_TIMEOUT', `${op}: waited ${timeoutMs} ms in vain`, {
    op,
    boxId,
    hint: 'Only the wait has ended: what was waited for goes on.',
  })
}

/** What is waited for goes on; only the wait ends. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const waiter = makeWaiter<T>({ signal })
  promise.then(waiter.resolve, waiter.reject)
  return waiter.promise
}
