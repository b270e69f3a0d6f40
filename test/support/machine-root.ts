// The root disk of the tests' virtual machines: the host's own programs on ext4, made once for all test files.
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { program } from './qemu.js'
import { makeRootfs } from './rootfs.js'

const ROOT = 'SLUICEBOX_TEST_MACHINE_ROOT'

/** What the suites run in boxes. */
const programs = [
  ...[
    'sh',
    'bash',
    'cat',
    'chmod',
    'chown',
    'cp',
    'cut',
    'date',
    'dd',
    'df',
    'echo',
    'env',
    'expr',
    'false',
    'find',
    'grep',
    'head',
  ],
  ...[
    'hostname',
    'id',
    'kill',
    'ln',
    'ls',
    'md5sum',
    'mkdir',
    'mkfifo',
    'mount',
    'mv',
    'nohup',
    'nproc',
    'od',
    'printf',
    'ps',
  ],
  ...[
    'pwd',
    'readlink',
    'rm',
    'rmdir',
    'sed',
    'seq',
    'setsid',
    'sha256sum',
    'sleep',
    'sort',
    'stat',
    'stty',
    'sync',
    'tail',
  ],
  ...[
    'tee',
    'test',
    'timeout',
    'touch',
    'tr',
    'true',
    'tty',
    'umount',
    'uname',
    'uniq',
    'wc',
    'who',
    'xargs',
    'yes',
    'node',
  ],
]

/** Once for all test files; `remove` takes it away. */
export async function makeMachineRoot(): Promise<{ remove(): void }> {
  const folder = mkdtempSync(join(tmpdir(), 'sluicebox-machine-root-'))
  const tree = join(folder, 'tree')
  await makeRootfs(tree, programs)
  mkdirSync(join(tree, 'usr/bin'), { recursive: true })
  for (const name of ['passwd', 'group']) copyFileSync(`/etc/${name}`, join(tree, 'etc', name))
  const disk = join(folder, 'root.raw')
  writeFileSync(disk, '')
  truncateSync(disk, 512 * 2 ** 20)
  await program('mkfs.ext4', ['-q', '-F', '-d', tree, '-m0', '-E', 'root_owner=0:0,lazy_itable_init=1,nodiscard', disk])
  rmSync(tree, { recursive: true })
  process.env[ROOT] = disk
  return { remove: () => rmSync(folder, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 }) }
}

export function machineRoot(): string {
  const disk = process.env[ROOT]
  if (!disk || !existsSync(disk)) throw new Error('the root disk of the tests was not made')
  return disk
}
