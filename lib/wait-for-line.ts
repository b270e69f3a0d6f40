// Waits for a line of output without using up anything that a reader would get.
import type { Output, Reader } from './output.js'
import { LineSplitter } from './readers/lines.js'
import { makeWaiter, waitTimeout } from './waiter.js'

export interface LineWait {
  readonly outputs: readonly Output[]
  matches(line: string): boolean
  /** What to fail with when the outputs end without the line. */
  ended(): Error
  readonly timeoutMs: number | undefined
  readonly signal: AbortSignal | undefined
}

const OP = 'execution.waitForLine'

export function waitForLine({ outputs, matches, ended, timeoutMs, signal }: LineWait): Promise<string> {
  if (signal?.aborted) return Promise.reject(signal.reason)
  let over = false
  let open = outputs.length
  const lookers: { readonly output: Output; readonly looker: Reader }[] = []
  const left = () => {
    over = true
    for (const { output, looker } of lookers) output.detach(looker)
  }
  const waiter = makeWaiter<string>({ timeoutMs, signal, late: () => waitTimeout(OP, timeoutMs as number), left })
  const look = (lines: readonly string[]) => {
    const line = over ? undefined : lines.find(matches)
    if (line !== undefined) waiter.resolve(line)
  }
  for (const output of outputs) {
    const splitter = new LineSplitter()
    const looker = {
      ready: true,
      idle: true,
      chunk: (chunk: Buffer) => look(splitter.push(chunk)),
      end(error?: Error) {
        look(splitter.end())
        if (--open === 0 && !over) waiter.reject(error ?? ended())
      },
    }
    lookers.push({ output, looker })
    output.look(looker)
    // It may be in what is at hand already.
    if (over) output.detach(looker)
  }
  return waiter.promise
}

/** A text is looked for anywhere in the line. A pattern is copied without the flags that remember where it was. */
export function matcher(pattern: string | RegExp): (line: string) => boolean {
  if (typeof pattern === 'string') return (line) => line.includes(pattern)
  const stateless = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''))
  return (line) => stateless.test(line)
}
