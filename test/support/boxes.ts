// Boxes for the tests, each in a home of its own, over either transport.
import { inspect } from 'node:util'
import { onTestFinished } from 'vitest'
import type { Box, BoxCreateOptions, Execution, ExitInfo, RuntimeOptions } from '../../lib/index.js'
import { Runtime } from '../../lib/runtime.js'
import { DEADLINE_MS } from './deadline.js'
import { makeFolder } from './folder.js'
import { asMachine, needMachines, sharedMachine } from './machine.js'

/** Of boxes made of namespaces: streams passed as descriptors, and framed. */
export const streams = ['passed', 'framed'] as const
/** And framed out of a virtual machine. */
export const transports = [...streams, 'machine'] as const
export type Transport = (typeof transports)[number]

/** Closed when the test ends, and its home removed after that. */
export function runtimeOver(transport: Transport, options: RuntimeOptions = {}): Runtime {
  const home = makeFolder()('home')
  const before = process.env.SLUICEBOX_TRANSPORT
  process.env.SLUICEBOX_TRANSPORT = transport
  try {
    if (transport === 'machine') needMachines()
    const isolation = transport === 'machine' ? 'vm' : 'namespace'
    const runtime = new Runtime({ home, isolation, ...options })
    if (transport === 'machine') giveRoot(runtime)
    onTestFinished(() => runtime.close({ timeoutMs: 2000 }))
    return runtime
  } finally {
    if (before === undefined) delete process.env.SLUICEBOX_TRANSPORT
    else process.env.SLUICEBOX_TRANSPORT = before
  }
}

/** A machine is shared by all tests of a file that want no box of a kind of its own. */
export const boxOver = (transport: Transport, options?: BoxCreateOptions): Promise<Box> =>
  transport === 'machine' && options === undefined ? sharedMachine() : runtimeOver(transport).create(options ?? {})

/** So that the table's tests need not know what their boxes start from. */
function giveRoot(runtime: Runtime): void {
  const create = runtime.create.bind(runtime)
  runtime.create = (options) => create(asMachine(options))
}

/** The value of a promise that must not take long; a missed deadline says for what. */
export async function soon<T>(promise: Promise<T>, what: string, deadlineMs = DEADLINE_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`still waiting after ${deadlineMs} ms for ${what}`)), deadlineMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Asks again and again, each answer awaited, until one holds. A missed deadline fails with the last answer. */
export async function eventually<T>(
  ask: () => Promise<T> | T,
  holds: (answer: T) => boolean,
  what: string,
  deadlineMs = DEADLINE_MS,
): Promise<T> {
  const deadline = performance.now() + deadlineMs
  for (;;) {
    const answer = await ask()
    if (holds(answer)) return answer
    // Whoever only asks takes the processor from those that are to make it so.
    await new Promise((resolve) => setTimeout(resolve, 10))
    if (performance.now() > deadline)
      throw new Error(`waited ${deadlineMs} ms in vain for ${what}; last: ${inspect(answer)}`)
  }
}

/** Everything that an execution tells, in order. */
export interface Heard {
  readonly order: string[]
  readonly stdout: Buffer[]
  readonly stderr: Buffer[]
  /** The terminal event. */
  readonly end: Promise<ExitInfo | Error>
}

export function hear(execution: Execution): Heard {
  const [order, stdout, stderr]: [string[], Buffer[], Buffer[]] = [[], [], []]
  execution.on('stdout', (chunk) => {
    order.push('stdout')
    stdout.push(chunk as Buffer)
  })
  execution.on('stderr', (chunk) => {
    order.push('stderr')
    stderr.push(chunk as Buffer)
  })
  const end = new Promise<ExitInfo | Error>((resolve) => {
    execution.on('exit', (exit) => {
      order.push('exit')
      resolve(exit)
    })
    execution.on('error', (error) => {
      order.push('error')
      resolve(error)
    })
  })
  return { order, stdout, stderr, end }
}

export const textOf = (chunks: readonly Uint8Array[]): string => Buffer.concat(chunks).toString()
