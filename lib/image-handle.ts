// An open image: its guest's bytes, read and written wherever a program likes, until it is closed.
import { Readable } from 'node:stream'
import { SluiceboxError } from './errors.js'
import type { Cancellable, DiskFormat, ImageHandle } from './image-types.js'
import type { Call } from './operation.js'
import { bad, readInteger, readOptions, readSignal } from './options.js'

type Above = (...args: never[]) => unknown
/** Runs one call on the runtime's workers. */
export type RunHandle = (call: Call, above: Above) => Promise<unknown>

/** As the addon gives it: `image` is the native one, which closes when it is collected. */
export interface NativeImage {
  readonly image: object
  readonly format: DiskFormat
  readonly size: number
  readonly readonly: boolean
  /** Closes it on this thread: for one that nobody gets. */
  release(): void
}

/** Of one call: what is on its way is in memory. */
const MOST_BYTES = 64 * 2 ** 20
const STREAM_CHUNK = 2 ** 20

export class OpenImage implements ImageHandle {
  readonly path: string
  readonly format: DiskFormat
  readonly size: number
  readonly readonly: boolean
  readonly #image: object
  readonly #run: RunHandle
  /** When it was closed. @internal */
  onClose = (): void => {}
  /** Calls take effect in the order in which they were made. */
  #last: Promise<unknown> = Promise.resolve()
  #closing: Promise<void> | undefined

  /** @internal */
  constructor(path: string, native: NativeImage, run: RunHandle) {
    this.path = path
    this.format = native.format
    this.size = native.size
    this.readonly = native.readonly
    this.#image = native.image
    this.#run = run
  }

  async read(offset: number, length: number, options?: Cancellable): Promise<Buffer> {
    const op = 'image.read'
    const request = { offset: readOffset(op, 'offset', offset), length: readLength(op, length, MOST_BYTES) }
    return (await this.#submit(op, request, options, this.read)) as Buffer
  }

  async write(offset: number, data: Uint8Array, options?: Cancellable): Promise<void> {
    const op = 'image.write'
    const at = readOffset(op, 'offset', offset)
    if (!(data instanceof Uint8Array)) throw bad(op, 'data', 'a Uint8Array', data)
    if (data.byteLength > MOST_BYTES) throw bad(op, 'data', 'at most 64 MiB a call', data.byteLength)
    // At once: the program may change its bytes, or hand them to another thread, while the call waits for its turn.
    await this.#submit(op, { offset: at, data: Uint8Array.prototype.slice.call(data) }, options, this.write)
  }

  async zero(offset: number, length: number, options?: Cancellable): Promise<void> {
    const op = 'image.zero'
    const request = { offset: readOffset(op, 'offset', offset), length: readLength(op, length) }
    await this.#submit(op, request, options, this.zero)
  }

  async flush(options?: Cancellable): Promise<void> {
    await this.#submit('image.flush', {}, options, this.flush)
  }

  createReadStream(options?: { start?: number; end?: number }): Readable {
    const op = 'image.createReadStream'
    const read = readOptions(op, options, ['start', 'end'])
    const start = read.start === undefined ? 0 : readOffset(op, 'start', read.start)
    const end = read.end === undefined ? this.size : readOffset(op, 'end', read.end) + 1
    return Readable.from(this.#chunks(start, Math.min(end, this.size)), {
      objectMode: false,
      highWaterMark: STREAM_CHUNK,
    })
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async *#chunks(start: number, end: number): AsyncGenerator<Buffer, void, undefined> {
    for (let at = start; at < end; at += STREAM_CHUNK) yield await this.read(at, Math.min(STREAM_CHUNK, end - at))
  }

  async #close(): Promise<void> {
    const call = { name: 'image.close', op: 'handle.close', request: { image: this.#image } }
    try {
      await this.#last.catch(() => {})
      await this.#run(call, this.close)
    } finally {
      this.onClose()
    }
  }

  #submit(name: string, request: object, options: Cancellable | undefined, above: Above): Promise<unknown> {
    const signal = readSignal(name, readOptions(name, options, ['signal']).signal)
    signal?.throwIfAborted()
    if (this.#closing)
      throw new SluiceboxError('INVALID_ARGUMENT', `${name}: the image ${this.path} was closed`, {
        op: name,
        path: this.path,
      })
    const call: Call = {
      name,
      op: name.replace('image.', 'handle.'),
      request: { ...request, image: this.#image },
      signal,
    }
    const done = this.#last.then(() => this.#run(call, above))
    this.#last = done.catch(() => {})
    return done
  }
}

function readOffset(op: string, name: string, value: unknown): number {
  const offset = readInteger(op, name, value, 0, Number.MAX_SAFE_INTEGER)
  if (offset === undefined) throw bad(op, name, 'a number of bytes', value)
  return offset
}

function readLength(op: string, value: unknown, most = Number.MAX_SAFE_INTEGER): number {
  const length = readInteger(op, 'length', value, 0, most)
  if (length === undefined) throw bad(op, 'length', 'a number of bytes', value)
  return length
}
