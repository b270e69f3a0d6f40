// A directory of its own for each test, gone when the test ends.
import { createHash } from 'node:crypto'
import { createReadStream, mkdtempSync, readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { onTestFinished } from 'vitest'

/** Gives the path of a name in a new directory; without a name, the directory's. */
export function makeFolder(parent = tmpdir()): (name?: string) => string {
  const folder = mkdtempSync(join(parent, 'sluicebox-test-'))
  onTestFinished(() => removeFolder(folder))
  return (name) => (name === undefined ? folder : join(folder, name))
}

/** Also one in which a keeper, whose box has just ended, still removes files of its own. */
export const removeFolder = (path: string): Promise<void> =>
  rm(path, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 })

export const bytesOf = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

export async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}
