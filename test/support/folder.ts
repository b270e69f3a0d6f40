// A directory of its own for each test, gone when the test ends.
import { createHash } from 'node:crypto'
import { createReadStream, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { onTestFinished } from 'vitest'

/** Gives the path of a name in a new directory; without a name, the directory's. */
export function makeFolder(parent = tmpdir()): (name?: string) => string {
  const folder = mkdtempSync(join(parent, 'sluicebox-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return (name) => (name === undefined ? folder : join(folder, name))
}

export const bytesOf = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

export async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}
