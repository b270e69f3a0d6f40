// A small root file system of the host's own programs, for boxes of { directory }.
import { copyFileSync, existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { program } from './qemu.js'

/** Copies these programs of the host, with the libraries that they need, to a new root at `path`. */
export async function makeRootfs(path: string, programs: readonly string[]): Promise<void> {
  for (const folder of ['bin', 'etc', 'tmp', 'dev', 'proc', 'sys']) mkdirSync(join(path, folder), { recursive: true })
  writeFileSync(join(path, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n')
  writeFileSync(join(path, 'etc/group'), 'root:x:0:\n')
  for (const name of programs) {
    const found = ['/bin', '/usr/bin'].map((folder) => join(folder, name)).find((each) => existsSync(each))
    if (!found) throw new Error(`the host has no ${name}`)
    copyFileSync(realpathSync(found), join(path, 'bin', name))
    const { stdout } = await program('ldd', [found])
    for (const [library] of stdout.matchAll(/\/[^\s()]+/g)) {
      const place = join(path, library)
      if (existsSync(place)) continue
      mkdirSync(dirname(place), { recursive: true })
      copyFileSync(realpathSync(library), place)
    }
  }
}
