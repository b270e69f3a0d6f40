// Virtual machines for the tests, one of them a test file's to share.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, onTestFinished, TestRunner } from 'vitest'
import type { Box, BoxCreateOptions, Execution } from '../../lib/index.js'
import { Runtime } from '../../lib/runtime.js'
import { removeFolder } from './folder.js'
import { machineRoot } from './machine-root.js'
import { descendantsOf, keeperOf, type SeenProcess } from './traces.js'

/** Set for all test files where this host cannot run machines: what it lacks. */
export const MACHINES_MISSING = 'SLUICEBOX_TEST_MACHINES_MISSING'

/** Skips the test where the host lacks QEMU or a kernel, and says which. */
export function needMachines(): void {
  const missing = process.env[MACHINES_MISSING]
  if (missing) TestRunner.getCurrentTest()?.context.skip(`no virtual machines here: ${missing}`)
}

/** For box.start() of a machine: emulated, on a host with other work, a boot takes what it takes. */
export const BOOT = { bootTimeoutMs: 600_000 }
/** For box.stop() and box.restart() of a machine that must turn itself off in order, however long it takes. */
export const ORDERLY = { timeoutMs: 300_000 }

export const asMachine = (options: BoxCreateOptions = {}): BoxCreateOptions => ({
  isolation: 'vm',
  rootfs: { disk: machineRoot(), format: 'raw' },
  ...BOOT,
  ...options,
})

/** The process that runs the guest. */
export function qemuOf({ id }: Pick<Box, 'id'>): SeenProcess {
  const keeper = keeperOf(id)
  const found = keeper && descendantsOf(keeper.pid).find(({ name }) => name.startsWith('qemu-system'))
  if (!found) throw new Error(`box ${id} has no QEMU`)
  return found
}

interface Shared {
  readonly home: string
  readonly runtime: Runtime
  readonly box: Promise<Box>
  /** What the running test started and may have left. */
  readonly executions: Set<Execution>
}
let shared: Shared | undefined
/** More than one where a machine did not boot. */
const ofThisFile: Shared[] = []

/** A machine takes seconds to boot: those tests that do not care which one they get share this, and leave it empty. */
export async function sharedMachine(): Promise<Box> {
  needMachines()
  shared ??= boot()
  const { box, executions } = shared
  onTestFinished(() => empty(executions))
  return box
}

function boot(): Shared {
  const home = mkdtempSync(join(tmpdir(), 'sluicebox-test-'))
  const runtime = new Runtime({ home })
  const executions = new Set<Execution>()
  const box = runtime.create(asMachine()).then((made) => {
    const exec = made.exec.bind(made)
    made.exec = async (...call: Parameters<Box['exec']>) => {
      const execution = await exec(...call)
      executions.add(execution)
      return execution
    }
    return made
  })
  const one = { home, runtime, box, executions }
  ofThisFile.push(one)
  // The next test boots another.
  box.catch(() => {
    if (shared === one) shared = undefined
  })
  return one
}

async function empty(executions: Set<Execution>): Promise<void> {
  const box = await shared?.box
  await Promise.all([...executions].map((execution) => execution[Symbol.asyncDispose]()))
  executions.clear()
  // Orphans too: all but the first process and the one that says so.
  await box?.run(['sh', '-c', 'kill -9 -1; rm -rf /tmp/*'])
}

afterAll(async () => {
  shared = undefined
  for (const { runtime, home } of ofThisFile.splice(0)) {
    await runtime.close({ timeoutMs: 5000 })
    await removeFolder(home)
  }
})
