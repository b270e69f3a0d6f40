// What run() keeps of the outputs: each up to its cap, and both in the order they came.
import { StringDecoder } from 'node:string_decoder'
import type { Bytes } from '../exec-types.js'
import type { Output, Reader } from '../output.js'
import { lengthWithoutNewline } from './lines.js'

/** A piece of one stream. Cutting the head of a stream shortens it, so that `all` is cut with it. */
interface Segment {
  readonly from: 'stdout' | 'stderr'
  bytes: Buffer
}

export interface CollectorOptions {
  readonly maxBuffer: number
  readonly overflow: 'error' | 'truncate-tail' | 'truncate-head'
  /** Whether the order of the two matters. */
  readonly all: boolean
  onOverflow(stream: 'stdout' | 'stderr'): void
}

class Stream {
  segments: Segment[] = []
  bytes = 0
  truncated = 0
}

export class Transcript {
  readonly #options: CollectorOptions
  readonly #streams = { stdout: new Stream(), stderr: new Stream() }
  #all: Segment[] = []
  #emptied = 0

  constructor(options: CollectorOptions) {
    this.#options = options
  }

  get truncated(): { stdout: number; stderr: number } {
    return { stdout: this.#streams.stdout.truncated, stderr: this.#streams.stderr.truncated }
  }

  add(from: 'stdout' | 'stderr', chunk: Buffer): void {
    const stream = this.#streams[from]
    const { maxBuffer, overflow, all } = this.#options
    const room = maxBuffer - stream.bytes
    const kept =
      overflow === 'truncate-head' ? chunk.subarray(Math.max(0, chunk.length - maxBuffer)) : chunk.subarray(0, room)
    stream.truncated += chunk.length - kept.length
    if (kept.length > 0) {
      const segment = { from, bytes: kept }
      stream.segments.push(segment)
      stream.bytes += kept.length
      if (all) this.#all.push(segment)
    }
    if (stream.bytes > maxBuffer) this.#cutHead(stream)
    if (overflow === 'error' && chunk.length > room) this.#options.onOverflow(from)
  }

  /** The bytes of one stream, or of both as they came. */
  bytesOf(which: 'stdout' | 'stderr' | 'all', strip: boolean): Buffer {
    const segments = which === 'all' ? this.#all : this.#streams[which].segments
    const whole = Buffer.concat(segments.map(({ bytes }) => bytes))
    return strip ? whole.subarray(0, lengthWithoutNewline(whole)) : whole
  }

  /** As text: each stream has a decoder of its own, so that the other's bytes do not come between those of one character. */
  textOf(which: 'stdout' | 'stderr' | 'all', strip: boolean, encoding: 'utf8' | 'latin1'): string {
    if (which !== 'all') return this.bytesOf(which, strip).toString(encoding)
    const decoders = { stdout: new StringDecoder(encoding), stderr: new StringDecoder(encoding) }
    const parts = this.#all.map(({ from, bytes }) => decoders[from].write(bytes))
    const text = [...parts, decoders.stdout.end(), decoders.stderr.end()].join('')
    return strip ? text.replace(/\r?\n$/, '') : text
  }

  #cutHead(stream: Stream): void {
    let excess = stream.bytes - this.#options.maxBuffer
    stream.bytes -= excess
    stream.truncated += excess
    let spent = 0
    while (excess > 0) {
      const first = stream.segments[spent] as Segment
      const cut = Math.min(excess, first.bytes.length)
      first.bytes = first.bytes.subarray(cut)
      excess -= cut
      if (first.bytes.length === 0) spent++
    }
    if (spent === 0) return
    stream.segments.splice(0, spent)
    this.#emptied += spent
    // Seldom, so that an endless output costs what its bytes cost.
    if (this.#emptied * 2 <= this.#all.length) return
    this.#all = this.#all.filter(({ bytes }) => bytes.length > 0)
    this.#emptied = 0
  }
}

/** Takes all of one output into the transcript; waits for the callback's promise before it takes more. */
export class Collector implements Reader {
  readonly #output: Output
  readonly #transcript: Transcript
  readonly #callback: ((chunk: Bytes) => void | Promise<void>) | undefined
  readonly #failed: (error: unknown) => void
  #busy = false

  constructor(
    output: Output,
    transcript: Transcript,
    callback: ((chunk: Bytes) => void | Promise<void>) | undefined,
    failed: (error: unknown) => void,
  ) {
    this.#output = output
    this.#transcript = transcript
    this.#callback = callback
    this.#failed = failed
    output.attach(this)
  }

  get ready(): boolean {
    return !this.#busy
  }

  get idle(): boolean {
    return !this.#busy
  }

  chunk(chunk: Buffer): void {
    this.#transcript.add(this.#output.name, chunk)
    if (this.#callback === undefined) return
    try {
      const done = this.#callback(chunk)
      if (typeof done?.then === 'function') this.#await(done)
    } catch (error) {
      this.#failed(error)
    }
  }

  end(): void {}

  #await(done: Promise<void>): void {
    this.#busy = true
    const free = () => {
      this.#busy = false
      this.#output.wake()
    }
    done.then(free, (error) => {
      free()
      this.#failed(error)
    })
  }
}
