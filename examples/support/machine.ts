// What the tour needs of the machine: other programs, real files, checksums, times.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { copyFile, opendir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

export const mib = 2 ** 20

/** Runs a program to its end; sbin is where mkfs.ext4 lives. */
export async function program(name: string, args: string[]): Promise<string> {
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
  const { stdout } = await promisify(execFile)(name, args, { env, maxBuffer: 64 * mib })
  return stdout
}

export async function timed<T>(work: () => Promise<T>): Promise<[T, ms: number]> {
  const start = performance.now()
  const value = await work()
  return [value, performance.now() - start]
}

/** Copies files of this machine into `folder` until they are `bytes` together. */
export async function stageFiles(
  folder: string,
  bytes: number,
): Promise<{ names: string[]; count: number; bytes: number }> {
  const names: string[] = []
  let total = 0
  for (const source of ['/usr/bin', '/usr/lib', '/usr/share']) {
    for await (const entry of await opendir(source, { recursive: true })) {
      if (total >= bytes) return { names, count: names.length, bytes: total }
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      const { size } = await stat(path)
      // Many ordinary files rather than a few huge ones.
      if (size === 0 || size > 16 * mib) continue
      const name = `${names.length}-${entry.name.replaceAll(/[^\w.-]/g, '_')}`
      await copyFile(path, join(folder, name))
      names.push(name)
      total += size
    }
  }
  return { names, count: names.length, bytes: total }
}

/** sha256 of what a guest would read from the image, through qemu-img: a reader that is not ours. */
export async function guestChecksum(image: string, folder: string): Promise<string> {
  const raw = join(folder, 'guest-view.raw')
  await program('qemu-img', ['convert', '-O', 'raw', image, raw])
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(raw, { highWaterMark: mib })) hash.update(chunk as Buffer)
  await rm(raw)
  return hash.digest('hex')
}
