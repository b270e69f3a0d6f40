// QEMU as one runs it by hand: the command line that our machines are compared to, and an initrd that is busybox with a script.
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'
import type { KernelModule } from './guest-kernel.js'

const MACHINE = 'q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off,graphics=off'
const KERNEL_WORDS =
  'console=ttyS0 quiet loglevel=3 panic=-1 reboot=t random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests nokaslr mitigations=off'
/** What the script prints when the guest is what it is to be. */
export const UP = 'the guest is up'
const BOOT_MS = 60_000

export interface PlainMachine {
  readonly kernel: string
  readonly initrd: string
  readonly memoryMib: number
  /** Beside those of every machine. */
  readonly devices?: readonly string[]
}

/** An initrd in `folder` whose init is `script`, with the modules in /modules. */
export async function plainInitrd(folder: string, script: string, modules: readonly KernelModule[] = []) {
  const tree = join(folder, 'initrd')
  for (const name of ['bin', 'modules']) mkdirSync(join(tree, name), { recursive: true })
  copyFileSync('/bin/busybox', join(tree, 'bin/busybox'))
  for (const { name, path } of modules) copyFileSync(path, join(tree, 'modules', `${name}.ko`))
  writeFileSync(join(tree, 'init'), script, { mode: 0o755 })
  const initrd = join(folder, 'plain.cpio')
  await promisify(execFile)('/bin/busybox', ['sh', '-c', `cd ${tree} && find . | busybox cpio -o -H newc > ${initrd}`])
  return initrd
}

/** Runs until its caller ends it, or it turns itself off. */
export function startPlain({ kernel, initrd, memoryMib, devices = [] }: PlainMachine) {
  return spawn(
    'qemu-system-x86_64',
    [
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-accel', 'tcg', '-M', MACHINE],
      ...['-m', String(memoryMib), '-smp', '1', '-kernel', kernel, '-initrd', initrd, '-append', KERNEL_WORDS],
      ...['-serial', 'stdio', ...devices],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
}

/** Once its script has said so; ends it if that takes too long. What it says later is thrown away. */
export async function isUp(child: ChildProcessByStdio<null, Readable, null>): Promise<void> {
  let text = ''
  const late = setTimeout(() => child.kill('SIGKILL'), BOOT_MS)
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject)
      child.stdout.once('close', () => reject(new Error(`the plain machine did not come up: ${text}`)))
      child.stdout.on('data', (chunk: Buffer) => {
        text += chunk
        if (text.includes(UP)) resolve()
      })
    })
  } finally {
    clearTimeout(late)
    child.stdout.removeAllListeners('data').resume()
  }
}
