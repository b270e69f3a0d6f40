// Programs in processes of their own: what a test says of an exit code, a crash or an idle loop is true of a whole process.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { onTestFinished } from 'vitest'
import { DEADLINE_MS } from './deadline.js'

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  readonly ms: number
  /** As Date.now() gives it. */
  readonly endedAt: number
}

const root = new URL('../../', import.meta.url)

/** What every program below finds declared: the compiled SDK with its addon for tests, and one testing.work. */
const prelude = `
import { Runtime, SluiceboxError } from '${new URL('dist/index.js', root).href}'
import { internals } from '${new URL('dist/runtime.js', root).href}'
import { loadAddon } from '${new URL('dist/native.js', root).href}'
const { addon } = loadAddon()
const door = addon.testing
const coreOf = (runtime) => internals.get(runtime).drain.core
const runWork = (runtime, request = {}, options = {}) =>
  internals.get(runtime).operations.run({ name: 'testing.work', op: 'testing.work',
    request: { ends: 'value', gate: 0, stubborn: false, commits: false, ...request }, ...options }, runWork)
`

/** Runs a module under the prelude to its end; one that is still there at the deadline is killed, which its signal tells. */
export function runModule(
  code: string,
  { args = [] as string[], deadlineMs = DEADLINE_MS, onStart = (_pid: number) => {} } = {},
) {
  // glibc overwrites what is freed: a use of it then crashes here, and not some day.
  const env = { ...process.env, MALLOC_PERTURB_: '165' }
  return runNode(['--input-type=module', '-e', prelude + code, '--', ...args], { deadlineMs, env, onStart })
}

export interface Running {
  readonly pid: number
  /** The next line that it prints. Rejects when it ends first, or says nothing for long. */
  line(): Promise<string>
  /** Writes a line to its stdin. */
  tell(line: string): void
  kill(signal?: NodeJS.Signals): void
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

/** A module under the prelude that runs until it is told or killed. It finds `lines`, an iterator of what it is told. */
export function startModule(code: string, env: NodeJS.ProcessEnv = {}): Running {
  const telling = `
import { createInterface } from 'node:readline'
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
`
  const child = spawn(process.execPath, ['--input-type=module', '-e', prelude + telling + code], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  })
  if (child.pid === undefined) throw new Error('no process')
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
  })
  child.stdin.on('error', () => {})
  return {
    pid: child.pid,
    async line() {
      const { value, done } = await within(lines.next(), 'a line')
      if (done) throw new Error('the child ended without saying more')
      return value
    },
    tell: (line) => void child.stdin.write(`${line}\n`),
    kill: (signal = 'SIGKILL') => void child.kill(signal),
    ended,
  }
}

async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what} of a child`)), DEADLINE_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

export function runNode(
  args: readonly string[],
  options: { deadlineMs?: number; env?: NodeJS.ProcessEnv; cwd?: string; onStart?: (pid: number) => void } = {},
): Promise<Ended> {
  const { deadlineMs = DEADLINE_MS, env = process.env, cwd, onStart } = options
  return new Promise((resolve, reject) => {
    const start = performance.now()
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env, cwd })
    const kill = () => void child.kill('SIGKILL')
    const timer = setTimeout(kill, deadlineMs)
    onTestFinished(kill)
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text
    })
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code, signal, stdout, stderr, ms: performance.now() - start, endedAt: Date.now() })
    })
    if (child.pid !== undefined) onStart?.(child.pid)
  })
}
