// A root disk for a virtual machine: busybox on ext4, made from a directory, without root and without a mount.
import { copyFile, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mib, program } from './machine.js'

const BUSYBOX = '/bin/busybox'

/** A raw image at `path`; `motd` is in its /etc/motd, and what `addTo` puts into the directory beside. */
export async function makeGuestDisk(path: string, motd: string, addTo?: (tree: string) => void): Promise<void> {
  const tree = await mkdtemp(join(tmpdir(), 'sluicebox-guest-'))
  try {
    for (const name of ['bin', 'etc', 'root', 'tmp', 'dev', 'proc', 'sys', 'run']) await mkdir(join(tree, name))
    await copyFile(BUSYBOX, join(tree, 'bin/busybox'))
    const applets = (await program(BUSYBOX, ['--list'])).split('\n').filter((name) => name && name !== 'busybox')
    for (const name of applets) await symlink('busybox', join(tree, 'bin', name))
    await writeFile(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
    await writeFile(join(tree, 'etc/motd'), `${motd}\n`)
    addTo?.(tree)
    await writeFile(path, '')
    await truncate(path, 64 * mib)
    await program('mkfs.ext4', ['-q', '-F', '-d', tree, '-E', 'root_owner=0:0,lazy_itable_init=1,nodiscard', path])
  } finally {
    await rm(tree, { recursive: true })
  }
}
