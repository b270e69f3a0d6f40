// What a caller gives for stdin, fed to the process piece by piece: the next is taken when the one before is in the pipe.
import { SluiceboxError } from './errors.js'
import { type Stdin, toBytes } from './stdin.js'

export type Source = AsyncIterable<unknown> | Iterable<unknown>

/**
 * Resolves when all was taken, or the process reads no more; rejects when the source fails. Either way the source is closed, and so is
 * the process's stdin.
 */
export async function feedFrom(source: Source, stdin: Stdin, ended: AbortSignal): Promise<void> {
  const iterator = iteratorOf(source)
  let leave = () => {}
  ended.addEventListener('abort', () => leave(), { once: true })
  try {
    while (!ended.aborted) {
      // A source that never answers must not keep anybody waiting for it.
      const next = await new Promise<IteratorResult<unknown> | undefined>((resolve, reject) => {
        leave = () => resolve(undefined)
        Promise.resolve(iterator.next()).then(resolve, reject)
      })
      if (next === undefined) break
      if (next.done) return
      const bytes = toBytes(next.value)
      if (bytes === undefined) {
        void close(iterator)
        throw new TypeError(`a source of stdin gave ${typeof next.value}, not bytes or a string`)
      }
      if (!(await isTaken(stdin, bytes))) break
    }
    void close(iterator)
  } finally {
    stdin.finish().catch(() => {})
  }
}

function iteratorOf(source: Source): AsyncIterator<unknown> | Iterator<unknown> {
  return Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
}

/** False: nobody reads any more. */
async function isTaken(stdin: Stdin, bytes: Uint8Array): Promise<boolean> {
  try {
    await stdin.feed(bytes, false)
    return true
  } catch (error) {
    if (SluiceboxError.is(error)) return false
    throw error
  }
}

/** Not awaited: a generator that is stuck in its own await would never return. Its failure concerns nobody any more. */
async function close(iterator: AsyncIterator<unknown> | Iterator<unknown>): Promise<void> {
  try {
    await iterator.return?.()
  } catch {
    // The process that it was for has ended.
  }
}
