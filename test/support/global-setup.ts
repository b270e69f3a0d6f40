// The suite's frame: child processes run the SDK as it is now, and nothing that a test made may be left behind.
import { execFileSync } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { missingForMachines } from '../../scripts/machines-here.mjs'
import { makeMachineRoot } from './machine-root.js'

export default async function setup(): Promise<() => Promise<void>> {
  compileIfOld()
  const before = new Set(await ours())
  const missing = await missingForMachines()
  if (missing !== undefined) process.env.SLUICEBOX_TEST_MACHINES_MISSING = missing
  const machines = missing === undefined ? await makeMachineRoot() : undefined
  return async () => {
    machines?.remove()
    const left = (await ours()).filter((name) => !before.has(name))
    if (left.length > 0) throw new Error(`the tests left these in ${tmpdir()}: ${left.join(', ')}`)
  }
}

const ours = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('sluicebox-test-'))

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
