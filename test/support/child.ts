// Programs in processes of their own: what a test says of an exit code, a crash or an idle loop is true of a whole process.
import { spawn } from 'node:child_process'
import { onTestFinished } from 'vitest'

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
  { args = [] as string[], deadlineMs = 40_000, onStart = (_pid: number) => {} } = {},
) {
  // glibc overwrites what is freed: a use of it then crashes here, and not some day.
  const env = { ...process.env, MALLOC_PERTURB_: '165' }
  return runNode(['--input-type=module', '-e', prelude + code, '--', ...args], { deadlineMs, env, onStart })
}

export function runNode(
  args: readonly string[],
  options: { deadlineMs?: number; env?: NodeJS.ProcessEnv; cwd?: string; onStart?: (pid: number) => void } = {},
): Promise<Ended> {
  const { deadlineMs = 40_000, env = process.env, cwd, onStart } = options
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
