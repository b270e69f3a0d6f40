// A process's stdin: writes go to the native side one at a time and in pieces, so that what waits for a slow process is what the
// caller gave and no copy of it beyond the first piece.
import { Writable } from 'node:stream'
import { inspect } from 'node:util'
import { InvalidArgumentError, SluiceboxError } from './errors.js'
import type { Bytes, ExecStdin } from './exec-types.js'
import { type Handle, HandleGone } from './handle.js'

const PIECE_BYTES = 256 * 1024

export class Stdin implements ExecStdin {
  readonly #handle: Handle
  readonly #context: { readonly boxId: string }
  #open: boolean
  #ended: Promise<void> | undefined
  #last: Promise<unknown> = Promise.resolve()
  /** The process will read no more: told by it, or by its end. */
  #dead = false

  /** `piped` false: /dev/null, or fed from a source; nobody may write to it. */
  constructor(handle: Handle, piped: boolean, boxId: string) {
    this.#handle = handle
    this.#open = piped
    this.#context = { boxId }
  }

  get writable(): boolean {
    return this.#open
  }

  write(data: string | Bytes): Promise<void> {
    return this.#checked('stdin.write', data, (bytes) => this.feed(bytes, true))
  }

  end(data?: string | Bytes): Promise<void> {
    if (data !== undefined && this.#open)
      return this.#checked('stdin.end', data, async (bytes) => {
        // Both are asked for at once: nobody writes in between.
        const written = this.feed(bytes, true)
        await Promise.all([written, this.finish()])
      })
    if (data !== undefined) return Promise.reject(this.#closedError('stdin.end'))
    return this.finish()
  }

  toWritable(): Writable {
    return new Writable({
      highWaterMark: PIECE_BYTES,
      write: (chunk, _encoding, done) => void this.write(chunk).then(() => done(), done),
      final: (done) => void this.end().then(() => done(), done),
    })
  }

  /** After what was written before. `copy`: the caller may change the bytes at once. @internal */
  feed(bytes: Uint8Array, copy: boolean): Promise<void> {
    const kept = copy ? Uint8Array.prototype.slice.call(bytes) : bytes
    return this.#queue(() => this.#send(kept))
  }

  /** The process sees EOF. Resolves also where nobody reads any more. @internal */
  finish(): Promise<void> {
    this.#open = false
    this.#ended ??= this.#queue(() => this.#command('stdin.end', 'end', {}).catch(ignoreClosed))
    return this.#ended
  }

  /** The process has ended: whether it took what still waits, the native side says. @internal */
  stop(): void {
    this.#open = false
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let start = 0; start < bytes.length; start += PIECE_BYTES)
      await this.#command('stdin.write', 'write', { bytes: bytes.subarray(start, start + PIECE_BYTES) })
  }

  async #command(op: string, verb: string, request: object): Promise<void> {
    if (this.#dead) throw this.#closedError(op)
    try {
      await this.#handle.command(op, verb, request)
    } catch (error) {
      this.#open = false
      this.#dead = true
      throw error instanceof HandleGone ? this.#closedError(op) : error
    }
  }

  #queue(work: () => Promise<void>): Promise<void> {
    const done = this.#last.then(work)
    // One that failed says so itself; those behind it find out on their own.
    this.#last = done.then(ignore, ignore)
    return done
  }

  #checked(op: string, data: unknown, then: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    const bytes = toBytes(data)
    if (bytes === undefined)
      return Promise.reject(
        new InvalidArgumentError('data', `expected a string or bytes, got ${inspect(data, { depth: 0 })}`, op),
      )
    if (!this.#open) return Promise.reject(this.#closedError(op))
    return then(bytes)
  }

  #closedError(op: string): SluiceboxError {
    return new SluiceboxError('STDIN_CLOSED', `${op}: the process reads no more from its stdin, or it was ended`, {
      op,
      ...this.#context,
    })
  }
}

/** undefined: neither text nor bytes. */
export function toBytes(data: unknown): Uint8Array | undefined {
  if (typeof data === 'string') return Buffer.from(data)
  return data instanceof Uint8Array ? data : undefined
}

const ignore = (): void => {}

function ignoreClosed(error: unknown): void {
  if (SluiceboxError.is(error) && error.code === 'STDIN_CLOSED') return
  throw error
}
