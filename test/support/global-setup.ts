// The suite's frame: child processes run the SDK as it is now, and nothing that a test made may be left behind.
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { missingForMachines } from '../../scripts/machines-here.mjs'
import { makeMachineRoot } from './machine-root.js'

export default async function setup(): Promise<() => Promise<void>> {
  compileIfOld()
  // Of this run alone: another may be under way beside it.
  const folder = mkdtempSync(join(tmpdir(), 'sluicebox-run-'))
  chmodSync(folder, 0o755)
  process.env.TMPDIR = folder
  const missing = await missingForMachines()
  if (missing !== undefined) process.env.SLUICEBOX_TEST_MACHINES_MISSING = missing
  const machines = missing === undefined ? await makeMachineRoot() : undefined
  // One boot of each kind of machine is enough for all test files.
  process.env.SLUICEBOX_TEMPLATES = join(folder, 'templates')
  return async () => {
    machines?.remove()
    rmSync(join(folder, 'templates'), { recursive: true, force: true })
    const left = await readdir(folder)
    rmSync(folder, { recursive: true, force: true })
    if (left.length === 0) return
    // vitest only prints what is thrown here.
    process.exitCode = 1
    throw new Error(`the tests left these in ${folder}: ${left.join(', ')}`)
  }
}

function compileIfOld(): void {
  const root = new URL('../../', import.meta.url).pathname
  const newest = (folder: string): number =>
    Math.max(
      ...readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => statSync(join(entry.parentPath, entry.name)).mtimeMs),
    )
  try {
    if (Math.min(newest('dist'), newest('build/tools')) > Math.max(newest('lib'), newest('examples'))) return
  } catch {
    // Never compiled.
  }
  execFileSync(process.execPath, ['scripts/build.mjs', 'typescript'], { cwd: root, stdio: 'inherit' })
}
