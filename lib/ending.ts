// How an execution ends, once: the process ends first; its readers get what is left; then its end is told. Those who wait() learn of it
// with the telling, or, where a reader takes nothing, a second after the process.
import type { SluiceboxError } from './errors.js'
import type { ExitInfo } from './exec-types.js'
import { makeWaiter, type Waiter, waitTimeout } from './waiter.js'

export type End = { readonly exit: ExitInfo } | { readonly error: SluiceboxError }

export interface EndingHooks {
  /** Whether every reader that the process's end found has all of its bytes. */
  isDelivered(): boolean
  /** Changes whenever a reader took something. */
  progress(): number
  /** Once. `heard`: somebody waited for the end. */
  tell(end: End, heard: boolean): void
  /** Nobody waits for the end any more, and nothing has to keep the event loop alive for it. Once. */
  over(): void
}

/** A reader that takes nothing for so long keeps nobody waiting but the exit event. */
const STALLED_MS = 1000

export class Ending {
  readonly #hooks: EndingHooks
  readonly #waiters = new Set<Waiter<ExitInfo>>()
  readonly #patient: Waiter<ExitInfo>[] = []
  #end: End | undefined
  #told = false
  #over = false
  #timer: NodeJS.Timeout | undefined
  #seen = -1

  constructor(hooks: EndingHooks) {
    this.#hooks = hooks
  }

  /** Whether the process has ended, told or not. */
  get hasEnded(): boolean {
    return this.#end !== undefined
  }

  get isTold(): boolean {
    return this.#told
  }

  /** Set when wait() would settle at once. */
  get exit(): ExitInfo | undefined {
    return this.#over && this.#end && 'exit' in this.#end ? this.#end.exit : undefined
  }

  /** The first word counts. */
  processEnded(end: End): void {
    if (this.#end) return
    this.#end = end
  }

  /** Tells the end if it is time. */
  check(): void {
    if (this.#end === undefined || this.#told) return
    if (this.#hooks.isDelivered()) this.tellNow()
    else this.#timer ??= setInterval(() => this.#giveUpOnStalled(), STALLED_MS)
  }

  /** Also where a reader has not taken everything: its box is gone, or it was let go. */
  tellNow(): void {
    if (this.#end === undefined || this.#told) return
    this.#told = true
    const heard = this.#waiters.size + this.#patient.length > 0
    this.#settle()
    for (const each of this.#patient.splice(0)) settle(each, this.#end)
    this.#hooks.tell(this.#end, heard)
  }

  /** The end once it was told, however long a reader takes. */
  told(op: string): Promise<ExitInfo> {
    if (this.#told) return this.wait(op)
    const waiter = makeWaiter<ExitInfo>({})
    this.#patient.push(waiter)
    return waiter.promise
  }

  wait(op: string, timeoutMs?: number, signal?: AbortSignal): Promise<ExitInfo> {
    if (signal?.aborted) return Promise.reject(signal.reason)
    const late = () => waitTimeout(op, timeoutMs as number)
    const waiter = makeWaiter<ExitInfo>({ timeoutMs, signal, late, left: () => this.#waiters.delete(waiter) })
    this.#waiters.add(waiter)
    if (this.#over) this.#settle()
    return waiter.promise
  }

  #giveUpOnStalled(): void {
    const progress = this.#hooks.progress()
    if (progress === this.#seen) this.#settle()
    this.#seen = progress
  }

  #settle(): void {
    clearInterval(this.#timer)
    for (const waiter of [...this.#waiters]) settle(waiter, this.#end as End)
    if (this.#over) return
    this.#over = true
    this.#hooks.over()
  }
}

function settle(waiter: Waiter<ExitInfo>, end: End): void {
  if ('exit' in end) waiter.resolve(end.exit)
  else waiter.reject(end.error)
}
