// Asynchronous iteration over an execution: its events, or its lines. Each begins to read at its first next(), and leaves when the
// loop is left.
import type { ExecutionEvent, ExitInfo } from '../exec-types.js'
import type { Output } from '../output.js'
import { LineSplitter } from './lines.js'
import { Pull } from './pull.js'

export type FromLine = { from: 'stdout' | 'stderr'; line: string }

/** `exit` rejects when the execution was lost. */
export async function* events(
  outputs: readonly Output[],
  exit: () => Promise<ExitInfo>,
): AsyncGenerator<ExecutionEvent, void, undefined> {
  const pull = new Pull(outputs)
  try {
    for (let piece = await pull.take(); piece; piece = await pull.take()) yield piece
    yield { type: 'exit', exit: await exit() }
  } finally {
    pull.close()
  }
}

export async function* lines(
  outputs: readonly Output[],
  preserveNewlines: boolean,
  signal: AbortSignal | undefined,
): AsyncGenerator<FromLine, void, undefined> {
  signal?.throwIfAborted()
  const pull = new Pull(outputs)
  const abort = () => pull.fail(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  const splitters = { stdout: new LineSplitter(preserveNewlines), stderr: new LineSplitter(preserveNewlines) }
  try {
    for (let piece = await pull.take(); piece; piece = await pull.take())
      for (const line of splitters[piece.type].push(piece.chunk)) yield { from: piece.type, line }
    for (const from of ['stdout', 'stderr'] as const) for (const line of splitters[from].end()) yield { from, line }
  } finally {
    signal?.removeEventListener('abort', abort)
    pull.close()
  }
}

export async function* textOf(lines: AsyncIterable<FromLine>): AsyncGenerator<string, void, undefined> {
  for await (const { line } of lines) yield line
}
