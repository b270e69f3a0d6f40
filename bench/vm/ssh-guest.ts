// The peer of executions in a machine: a plain QEMU with a server of ssh, behind QEMU's user network, and one connection to it that every
// command shares.
import { execFile, type SpawnOptions, spawn } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { makeGuestDisk } from '../../examples/support/guest-disk.js'
import { modulesOf } from './guest-kernel.js'
import { isUp, plainInitrd, startPlain, UP } from './plain-machine.js'
import type { Bench } from './subject.js'

const script = new URL('../../../../scripts/ssh-guest.mjs', import.meta.url).pathname
const parts = new URL('../../../ssh-guest', import.meta.url).pathname
const DRIVERS = ['virtio_pci', 'virtio_blk', 'virtio_rng', 'crc32c_generic', 'ext4', 'virtio_net']
/** Of QEMU's user network, which is the same for everybody. */
const [ADDRESS, GATEWAY] = ['10.0.2.15', '10.0.2.2']

export interface SshGuest {
  /** The words of a local command that runs this one in the guest, through the connection that is open. */
  readonly over: (command: readonly string[]) => [program: string, args: string[]]
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

/** Obtains what this host lacks for it, or says what that is. Before any machine boots: it may be another kernel. */
export function fetchSshParts(): Promise<void> {
  // Its words are no part of the figures.
  return finished(process.execPath, [script], { stdio: ['ignore', 2, 2] })
}

/** A root disk with the server and the key of this run. Machines of ours run it as well. */
export async function makeSshDisk(folder: string): Promise<string> {
  const [disk, key] = [join(folder, 'ssh.raw'), join(folder, 'key')]
  await promisify(execFile)('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  await makeGuestDisk(disk, 'bench', (tree) => {
    for (const name of ['etc/dropbear', 'root/.ssh', 'lib64', 'dev/pts'])
      mkdirSync(join(tree, name), { recursive: true })
    copyFileSync(join(parts, 'dropbear'), join(tree, 'bin/dropbear'))
    cpSync(join(parts, 'lib'), join(tree, 'lib'), { recursive: true })
    for (const loader of readdirSync(join(parts, 'lib')).filter((name) => name.startsWith('ld-linux')))
      copyFileSync(join(parts, 'lib', loader), join(tree, 'lib64', loader))
    writeFileSync(join(tree, 'root/.ssh/authorized_keys'), readFileSync(`${key}.pub`), { mode: 0o600 })
  })
  return disk
}

export async function startSshGuest({ folder, kernel, memoryMib }: Bench, disk: string): Promise<SshGuest> {
  const inside = join(folder, 'ssh-peer')
  const modules = modulesOf(kernel, DRIVERS)
  const initrd = await plainInitrd(inside, initScript(modules.map(({ name }) => name)), modules)
  const port = await freePort()
  const devices = [
    ...['-drive', `file=${disk},format=raw,if=none,id=root,snapshot=on`, '-device', 'virtio-blk-pci,drive=root'],
    ...['-netdev', `user,id=net,hostfwd=tcp:127.0.0.1:${port}-:22`, '-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-object', 'rng-random,id=rng,filename=/dev/urandom', '-device', 'virtio-rng-pci,rng=rng'],
  ]
  const qemu = startPlain({ kernel: kernel.image, initrd, memoryMib, devices })
  const ended = new Promise((resolve) => qemu.once('close', resolve))
  const socket = join(inside, 'control')
  const options = [
    ...['-F', 'none', '-i', join(folder, 'key'), '-p', String(port), '-S', socket, '-o', 'IdentitiesOnly=yes'],
    ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR'],
    'root@127.0.0.1',
  ]
  const end = async () => {
    qemu.kill('SIGKILL')
    await ended
  }
  try {
    await isUp(qemu)
    // It goes into the background once the connection stands, and ends with it.
    await finished('ssh', ['-M', '-N', '-f', ...options], { stdio: ['ignore', 2, 2] })
  } catch (error) {
    await end()
    throw error
  }
  return {
    over: (command) => ['ssh', [...options, ...command]],
    async [Symbol.asyncDispose]() {
      await finished('ssh', ['-O', 'exit', ...options], { stdio: 'ignore' })
      await end()
    },
  }
}

const initScript = (modules: readonly string[]) => `#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /dev /proc /root
$b mount -t devtmpfs none /dev
$b mount -t proc none /proc
for name in ${modules.join(' ')}; do $b insmod /modules/$name.ko; done
until [ -b /dev/vda ]; do $b usleep 1000; done
$b mount -t ext4 /dev/vda /root
for name in dev proc; do $b mount --move /$name /root/$name; done
exec $b switch_root /root /bin/sh -c '
mkdir -p /dev/pts; mount -t devpts none /dev/pts
chown -R 0:0 /root; chmod 700 /root /root/.ssh
ifconfig lo up; ifconfig eth0 ${ADDRESS} up; route add default gw ${GATEWAY}
dropbear -R -E && echo ${UP} > /dev/ttyS0
exec sleep 1000000' < /root/dev/ttyS0 > /root/dev/ttyS0 2>&1
`

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (typeof address !== 'object' || !address) throw new Error('no port of loopback is free')
  return address.port
}

async function finished(program: string, args: string[], options: SpawnOptions): Promise<void> {
  const child = spawn(program, args, options)
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}`)
}
