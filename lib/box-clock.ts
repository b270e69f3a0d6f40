// How long a box may run: in all, and without anybody using it. By the monotonic clock, so that setting the time changes nothing.
export interface ClockLimits {
  /** Time without a running execution or a touch(). */
  readonly idleTimeoutMs?: number
  readonly onIdle: 'stop' | 'pause'
  /** All time from its start. */
  readonly ttlMs?: number
}

export class BoxClock {
  readonly #limits: ClockLimits
  readonly #due: (why: 'idle' | 'ttl') => void
  #idle: NodeJS.Timeout | undefined
  #ttl: NodeJS.Timeout | undefined
  #isRunning = false
  #users = 0

  /** `due` is called once for each time that ran out. No timer keeps the process alive. */
  constructor(limits: ClockLimits, due: (why: 'idle' | 'ttl') => void) {
    this.#limits = limits
    this.#due = due
  }

  /** The box runs, also again after a pause. */
  run(): void {
    this.#isRunning = true
    const { ttlMs } = this.#limits
    if (ttlMs !== undefined) this.#ttl ??= setTimeout(() => this.#due('ttl'), ttlMs).unref()
    this.touch()
  }

  /** A pause is not idle time. */
  pause(): void {
    this.#isRunning = false
    clearTimeout(this.#idle)
  }

  /** Its time is over: nothing is due any more until it runs again. */
  end(): void {
    this.pause()
    clearTimeout(this.#ttl)
    this.#ttl = undefined
  }

  /** Somebody began to use it. */
  enter(): void {
    this.#users++
    clearTimeout(this.#idle)
  }

  leave(): void {
    this.#users--
    this.touch()
  }

  /** Idle time begins anew. */
  touch(): void {
    clearTimeout(this.#idle)
    const { idleTimeoutMs } = this.#limits
    if (idleTimeoutMs === undefined || !this.#isRunning || this.#users > 0) return
    this.#idle = setTimeout(() => this.#due('idle'), idleTimeoutMs).unref()
  }
}
