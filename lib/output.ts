// One stream of an execution: taken from its native lane when every reader can take more, and given to each of them. What nobody
// reads stays in the lane, where it makes the process wait.
import type { Core, HandleId } from './native.js'

/** Somebody who takes a stream's bytes. */
export interface Reader {
  /** Whether it takes the next chunk now; when that changes it says so by Output.wake(). */
  readonly ready: boolean
  /** Whether its consumer has taken all that it was given. */
  readonly idle: boolean
  chunk(chunk: Buffer): void
  /** Nothing follows; with an error, what followed was lost. */
  end(error?: Error): void
}

/** What an output needs of its execution. */
export interface OutputHooks {
  readonly core: Core
  readonly handle: HandleId
  readonly highWaterMark: number
  later(work: () => void): void
  /** Something moved: the execution looks whether its end can be told. */
  moved(): void
  /** The reader of the lane is done, and the lane is not. */
  discard(lane: number): void
}

/** A chunk is a block of the lane at most; larger ones cost more in memory that the kernel has to clear. */
const READ_BYTES = 64 * 1024
/** So that a flood leaves the loop to others. */
const READS_A_TURN = 4

export class Output {
  readonly name: 'stdout' | 'stderr'
  readonly #lane: number
  readonly #hooks: OutputHooks
  readonly #readers = new Set<Reader>()
  /** They look and take nothing: what only they have seen is kept for the first reader. */
  readonly #lookers = new Set<Reader>()
  /** They saw the end, and their consumers have not taken everything yet. */
  readonly #ending = new Set<Reader>()
  #kept: Buffer[] = []
  #keptBytes = 0
  #taken = 0
  #available = false
  #paused = false
  #scheduled = false
  #finished = false
  #error: Error | undefined
  /** How many bytes are the process's own, once it ended and that is known. */
  #own: number | undefined
  /** The readers that the end of the process found; the news of it waits for them. */
  #awaited: Set<Reader> | undefined

  /** `exists` false: the process has no such stream, and readers see its end at once. */
  constructor(name: 'stdout' | 'stderr', lane: number, exists: boolean, hooks: OutputHooks) {
    this.name = name
    this.#lane = lane
    this.#hooks = hooks
    this.#finished = !exists
  }

  /** Bytes that readers were given. */
  get position(): number {
    return this.#taken - this.#keptBytes
  }

  get hasReader(): boolean {
    return this.#readers.size + this.#lookers.size > 0
  }

  /** Whether every reader that the process's end found has all of its bytes. */
  get isSettled(): boolean {
    if (this.#awaited === undefined) return false
    for (const reader of this.#awaited) if (this.#isReading(reader) || !reader.idle) return false
    return true
  }

  /** Whether nothing is left that a later reader could be given. */
  get isSpent(): boolean {
    return this.#isOver
  }

  attach(reader: Reader): void {
    this.#readers.add(reader)
    this.wake()
  }

  /** A reader for which nothing is used up. */
  look(reader: Reader): void {
    this.#lookers.add(reader)
    for (const chunk of this.#kept) reader.chunk(chunk)
    this.wake()
  }

  detach(reader: Reader): void {
    this.#readers.delete(reader)
    this.#lookers.delete(reader)
    this.#ending.delete(reader)
    this.#awaited?.delete(reader)
    this.wake()
  }

  /** A reader can take more, has gone, or was added. Acts on a later turn, so that readers added in one go see the same bytes. */
  wake(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    this.#hooks.later(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.wake()
  }

  /** The lane has bytes, or its end. */
  readable(): void {
    this.#available = true
    this.#pump()
  }

  /** The process ended: `own` bytes are its own, or unknown when it was lost (`error`). */
  processEnded(own: number | undefined, error?: Error): void {
    this.#own = own
    this.#error = error
    this.#awaited = new Set([...this.#readers, ...this.#lookers, ...this.#ending])
    if (own !== undefined && this.#taken >= own) this.#finish()
    this.#pump()
  }

  /** Lets every reader go, with `error` where it has not seen the end; nothing is kept. */
  abandon(error: Error): void {
    if (!this.#isOver) this.#error ??= error
    this.#kept = []
    this.#keptBytes = 0
    this.#finish()
    this.#endAll()
  }

  get #isOver(): boolean {
    return this.#finished && this.#kept.length === 0
  }

  #isReading(reader: Reader): boolean {
    return this.#readers.has(reader) || this.#lookers.has(reader)
  }

  #pump(): void {
    if (this.#finished) this.#endAll()
    if (!this.#isOver && !this.#paused && this.#isWanted()) this.#move()
    this.#hooks.moved()
  }

  #isWanted(): boolean {
    if (this.#readers.size === 0) return this.#lookers.size > 0 && !this.#finished
    for (const reader of this.#readers) if (!reader.ready) return false
    return true
  }

  #move(): void {
    const kept = this.#readers.size > 0 ? this.#kept.shift() : undefined
    if (kept !== undefined) {
      this.#keptBytes -= kept.length
      for (const reader of [...this.#readers]) reader.chunk(kept)
      this.wake()
      return
    }
    if (this.#own !== undefined && this.#taken >= this.#own) this.#finish()
    else this.#readSome()
    if (this.#finished) this.#endAll()
  }

  /** A few chunks, then the event loop and the other streams have their turn. */
  #readSome(): void {
    for (let reads = 0; reads < READS_A_TURN && this.#available; reads++) {
      this.#read()
      if (this.#finished || this.#paused || !this.#isWanted()) return
    }
    if (this.#available) this.wake()
  }

  #read(): void {
    const left = this.#own === undefined ? READ_BYTES : Math.min(READ_BYTES, this.#own - this.#taken)
    const { chunk, more, ended } = this.#hooks.core.read(this.#hooks.handle, this.#lane, left)
    this.#available = more
    this.#taken += chunk.length
    if (chunk.length > 0) this.#give(chunk)
    if (ended) this.#finished = true
    else if (this.#own !== undefined && this.#taken >= this.#own) this.#finish()
  }

  #give(chunk: Buffer): void {
    if (this.#readers.size === 0) this.#keep(chunk)
    // A copy: a reader may go, or another come, while it is told.
    for (const reader of [...this.#readers, ...this.#lookers]) reader.chunk(chunk)
  }

  /** For the first reader: as much as its lane would have held. */
  #keep(chunk: Buffer): void {
    this.#kept.push(chunk)
    this.#keptBytes += chunk.length
    while (this.#keptBytes - (this.#kept[0] as Buffer).length >= this.#hooks.highWaterMark)
      this.#keptBytes -= (this.#kept.shift() as Buffer).length
  }

  /** The lane itself may go on: an orphan holds the other end. */
  #finish(): void {
    if (this.#finished) return
    this.#finished = true
    this.#hooks.discard(this.#lane)
  }

  /** Tells the end: to lookers, who have seen what is kept, and once nothing is kept to readers. */
  #endAll(): void {
    const told = this.#isOver ? [...this.#readers, ...this.#lookers] : [...this.#lookers]
    for (const reader of told) {
      this.#readers.delete(reader)
      this.#lookers.delete(reader)
      reader.end(this.#error)
      if (!reader.idle) this.#ending.add(reader)
    }
  }
}
