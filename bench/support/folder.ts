// A folder of a benchmark's own, removed when it ends, and when somebody interrupts it.
import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'sluicebox-bench-'))
  const clean = (): void => rmSync(folder, { recursive: true, force: true })
  const interrupted = (): void => {
    clean()
    process.exit(130)
  }
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted)
  try {
    return await work(folder)
  } finally {
    clean()
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted)
  }
}
