// A reader that is asked: what iterators and web streams stand on. Holds little more than the chunk that is to be taken next.
import type { Output, Reader } from '../output.js'

export interface Piece {
  readonly type: 'stdout' | 'stderr'
  readonly chunk: Buffer
}

const HOLD_BYTES = 64 * 1024

interface Taker {
  resolve(piece: Piece | undefined): void
  reject(error: unknown): void
}

export class Pull {
  readonly #attached: { readonly output: Output; readonly reader: Reader }[]
  readonly #pieces: Piece[] = []
  #bytes = 0
  #open: number
  #failure: { readonly reason: unknown } | undefined
  #taker: Taker | undefined
  #closed = false
  /** Its consumer knows that nothing follows. */
  #sawEnd = false

  /** Reads these from now on. */
  constructor(outputs: readonly Output[]) {
    this.#open = outputs.length
    this.#attached = outputs.map((output) => ({ output, reader: this.#reader(output.name) }))
    for (const { output, reader } of this.#attached) output.attach(reader)
  }

  /** The next piece, or undefined at the end of all of them. To be called again only once it has settled. */
  take(): Promise<Piece | undefined> {
    const piece = this.#pieces.shift()
    if (piece) {
      this.#bytes -= piece.chunk.length
      if (this.#bytes < HOLD_BYTES) this.#wake()
      return Promise.resolve(piece)
    }
    if (this.#failure || this.#open === 0 || this.#closed) {
      this.#sawEnd = true
      this.#wake()
      return this.#failure ? Promise.reject(this.#failure.reason) : Promise.resolve(undefined)
    }
    return new Promise((resolve, reject) => {
      this.#taker = { resolve, reject }
      // Its consumer has come back for more: what it was given before is dealt with.
      this.#wake()
    })
  }

  /** The one who takes, now or next, fails. */
  fail(reason: unknown): void {
    this.#failure ??= { reason }
    this.#settleTaker()?.reject(reason)
    this.close()
  }

  /** Reads no more: the others go on without it. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const { output, reader } of this.#attached) output.detach(reader)
    this.#settleTaker()?.resolve(undefined)
  }

  #reader(type: Piece['type']): Reader {
    const ready = () => this.#bytes < HOLD_BYTES
    const idle = () => this.#closed || (this.#pieces.length === 0 && (this.#taker !== undefined || this.#sawEnd))
    return {
      get ready() {
        return ready()
      },
      get idle() {
        return idle()
      },
      chunk: (chunk) => this.#push({ type, chunk }),
      end: (error) => this.#ended(error),
    }
  }

  #push(piece: Piece): void {
    const taker = this.#settleTaker()
    if (taker) {
      taker.resolve(piece)
      return
    }
    this.#pieces.push(piece)
    this.#bytes += piece.chunk.length
  }

  #ended(error: Error | undefined): void {
    if (error) this.#failure ??= { reason: error }
    if (--this.#open > 0) return
    const taker = this.#settleTaker()
    if (!taker) return
    this.#sawEnd = true
    if (this.#failure) taker.reject(this.#failure.reason)
    else taker.resolve(undefined)
  }

  #settleTaker(): Taker | undefined {
    const taker = this.#taker
    this.#taker = undefined
    return taker
  }

  #wake(): void {
    for (const { output } of this.#attached) output.wake()
  }
}
