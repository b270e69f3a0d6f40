// qemu-img and qemu-io: the oracle of the image tests.
import { type ExecFileException, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { onTestFinished } from 'vitest'

export interface Answer {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export function program(name: string, args: readonly string[], cwd?: string): Promise<Answer> {
  return new Promise((resolve) => {
    execFile(name, args, { cwd, maxBuffer: 2 ** 28 }, (error: ExecFileException | null, stdout, stderr) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? 1 : 0, stdout, stderr }),
    )
  })
}

/** Fails on another exit code than 0. */
export async function qemuImg(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await program('qemu-img', args)
  if (code !== 0) throw new Error(`qemu-img ${args.join(' ')} ended with ${code}: ${stderr}`)
  return stdout
}

export const qemuInfo = async (path: string): Promise<Record<string, unknown>> =>
  JSON.parse(await qemuImg('info', '--output=json', path))

/** Runs these qemu-io commands on a qcow2 (or other) image. */
export async function qemuIo(path: string, commands: readonly string[], format = 'qcow2'): Promise<void> {
  const args = ['-f', format, ...commands.flatMap((command) => ['-c', command]), path]
  const { code, stdout, stderr } = await program('qemu-io', args)
  // qemu-io reports a failed command on its output, with exit code 0.
  if (code !== 0 || /error|failed|abort/i.test(stdout + stderr)) throw new Error(`qemu-io ${path}: ${stdout}${stderr}`)
}

/** sha256 of what a guest reads. */
export async function guestHash(path: string): Promise<string> {
  const { createHash } = await import('node:crypto')
  const { mkdtemp, rm, readFile } = await import('node:fs/promises')
  const { tmpdir } = await import('node:os')
  const folder = await mkdtemp(`${tmpdir()}/sluicebox-test-`)
  try {
    await qemuImg('convert', '-U', '-O', 'raw', path, `${folder}/raw`)
    return createHash('sha256')
      .update(await readFile(`${folder}/raw`))
      .digest('hex')
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** A live qemu-io that has the image open for writing; it holds QEMU's locks until the test ends, or release(). */
export async function holdInQemu(path: string, { readOnly = false } = {}): Promise<{ release(): Promise<void> }> {
  const args = ['-f', 'qcow2', ...(readOnly ? ['-r'] : []), path]
  const child = spawn('qemu-io', args, { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  // Its prompt comes once the image is open. It answers a command even while its output is no terminal.
  child.stdin.write('length\n')
  await once(child.stdout, 'data')
  child.stdout.resume()
  return {
    async release() {
      const ended = once(child, 'close')
      child.stdin.end('quit\n')
      await ended
    },
  }
}
