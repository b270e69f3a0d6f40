// An output as a Node stream, and any of them as a web stream. Both begin to read when they are first read from.
import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import type { Output, Reader } from '../output.js'
import { Pull } from './pull.js'

export function toReadable(output: Output): Readable {
  const reader = new ReadableReader(output)
  return reader.stream
}

class ReadableReader implements Reader {
  readonly stream: Readable
  #wanted = false

  constructor(output: Output) {
    let attached = false
    this.stream = new Readable({
      highWaterMark: 64 * 1024,
      read: () => {
        this.#wanted = true
        if (attached) output.wake()
        else output.attach(this)
        attached = true
      },
      destroy: (error, done) => {
        output.detach(this)
        done(error)
      },
    })
    // Its consumer has taken the last byte: only now the end of the process may be told.
    this.stream.once('end', () => output.wake())
  }

  get ready(): boolean {
    return this.#wanted
  }

  get idle(): boolean {
    return this.stream.readableLength === 0
  }

  chunk(chunk: Buffer): void {
    // Before the push: a consumer that takes it there and then asks for more.
    this.#wanted = false
    if (this.stream.push(chunk)) this.#wanted = true
  }

  end(error?: Error): void {
    if (error === undefined) this.stream.push(null)
    // Without an end it does not pass for whole; an 'error' that nobody listens for would end the program.
    else this.stream.destroy(this.stream.listenerCount('error') > 0 ? error : undefined)
  }
}

export function toWebStream(outputs: readonly Output[]): ReadableStream<Uint8Array> {
  let pull: Pull | undefined
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        pull ??= new Pull(outputs)
        const piece = await pull.take()
        if (piece) controller.enqueue(piece.chunk)
        else controller.close()
      },
      cancel: () => pull?.close(),
    },
    { highWaterMark: 0 },
  )
}
