// Virtual machines for the tests, one of them a test file's to share.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import type { Box, BoxCreateOptions } from '../../lib/index.js'
import { Runtime } from '../../lib/runtime.js'
import { machineRoot } from './machine-root.js'

export const asMachine = (options: BoxCreateOptions = {}): BoxCreateOptions => ({
  isolation: 'vm',
  rootfs: { disk: machineRoot(), format: 'raw' },
  ...options,
})

let shared: { home: string; runtime: Runtime; box: Promise<Box> } | undefined

/** A machine takes seconds to boot: those tests that do not care which one they get share this. */
export function sharedMachine(): Promise<Box> {
  if (!shared) {
    const home = mkdtempSync(join(tmpdir(), 'sluicebox-test-'))
    const runtime = new Runtime({ home })
    shared = { home, runtime, box: runtime.create(asMachine()) }
  }
  return shared.box
}

afterAll(async () => {
  if (!shared) return
  await shared.runtime.close({ timeoutMs: 5000 })
  rmSync(shared.home, { recursive: true, force: true })
  shared = undefined
})
