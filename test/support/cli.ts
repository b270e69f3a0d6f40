// The program `sluicebox`, as a shell calls it.
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { makeFolder } from './folder.js'
import { type Answer, program, qemuIo } from './qemu.js'

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

export const sluicebox = (cwd: string, ...args: string[]): Promise<Answer> =>
  program(process.execPath, [main, ...args], cwd)

/** The same call to `sluicebox image` and to qemu-img, each with copies of the same files in its own folder. */
export interface Pair {
  readonly ours: Answer
  readonly theirs: Answer
}
export async function both(folders: { ours: string; theirs: string }, ...args: string[]): Promise<Pair> {
  const [ours, theirs] = await Promise.all([
    sluicebox(folders.ours, 'image', ...args),
    program('qemu-img', args, folders.theirs),
  ])
  return { ours, theirs }
}

/** Two folders in which the same calls are made, and what they are made with. */
export function pairOfFolders() {
  const folder = makeFolder()
  const folders = { ours: folder('ours'), theirs: folder('theirs') }
  for (const path of Object.values(folders)) mkdirSync(path)
  return {
    folders,
    /** The same by qemu-img in both, so that both begin with the same bytes. */
    async prepare(...args: string[]) {
      for (const cwd of Object.values(folders)) expect((await program('qemu-img', args, cwd)).stderr).toBe('')
    },
    async write(file: string, ...commands: string[]) {
      for (const cwd of Object.values(folders)) await qemuIo(`${cwd}/${file}`, commands)
    },
    file(name: string, bytes: Uint8Array | string) {
      for (const cwd of Object.values(folders)) writeFileSync(`${cwd}/${name}`, bytes)
    },
    run: Object.assign((...args: string[]) => both(folders, ...args), { in: both }),
    /** Both print the same and end alike. */
    async same(...args: string[]): Promise<Pair> {
      const pair = await both(folders, ...args)
      expect({ args, ...withoutName(pair.ours) }).toEqual({ args, ...withoutName(pair.theirs) })
      return pair
    },
    async sameJson(...args: string[]) {
      const { ours, theirs } = await both(folders, ...args)
      expect({ args, code: ours.code, stderr: ours.stderr }).toEqual({ args, code: theirs.code, stderr: theirs.stderr })
      expect(JSON.parse(ours.stdout)).toEqual(JSON.parse(theirs.stdout))
    },
    /** Both refuse with the same exit code; the words may differ. */
    async bothRefuse(code: number, ...args: string[]) {
      const { ours, theirs } = await both(folders, ...args)
      expect({ args, ours: ours.code, theirs: theirs.code }).toEqual({ args, ours: code, theirs: code })
      expect(ours.stderr).toMatch(/^sluicebox: .+\n(Try 'sluicebox --help' for more information\n)?$/)
      expect(ours.stdout).toBe('')
    },
  }
}

const withoutName = ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({
  code,
  stdout,
  stderr: stderr.replace(/^(sluicebox|qemu-img): /gm, ''),
})
