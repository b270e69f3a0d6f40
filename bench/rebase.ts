// The figures of rebase: ours against qemu-img's, on the same images with the page cache warm, and our info against the spawn of
// qemu-img that a Node program needs without us. Both sides flush what they wrote, each as it does by default.
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Runtime } from 'sluicebox'
import { alternate, type Figure, type Goal, speed, spread } from './measure.js'
import { type Bases, makeBases } from './rebase/bases.js'
import { inFolder } from './support/folder.js'

const run = promisify(execFile)
const INFO_CALLS = 20

export const rebase = (rounds: number): Promise<Figure[]> =>
  inFolder(async (folder) => {
    await using runtime = new Runtime()
    const unit = 'ratio'
    const peer = 'qemu-img rebase'
    return [
      await moves(runtime, rounds, { name: 'rebase.sparse_100g', unit, peer, goal: '>= 50' }, folder, {
        dataMib: 1024,
        strideMib: 100,
        format: 'qcow2',
      }),
      await moves(runtime, rounds, { name: 'rebase.dense_2g', unit, peer, goal: '>= 1' }, folder, {
        dataMib: 2048,
        strideMib: 1,
        format: 'raw',
      }),
      await info(runtime, rounds, folder),
    ]
  })

export async function moves(
  runtime: Runtime,
  rounds: number,
  goal: Goal,
  folder: string,
  shape: Parameters<typeof makeBases>[2],
): Promise<Figure> {
  const bases = await makeBases(folder, goal.name, shape)
  const empty = join(folder, `${goal.name}.qcow2`)
  await runtime.images.create(empty, { format: 'qcow2', backing: { path: bases.old, format: bases.format } })
  const [mine, theirs] = [join(folder, 'ours.qcow2'), join(folder, 'theirs.qcow2')]
  const times = await alternate(
    rounds,
    async () => {
      await copyFile(empty, mine)
      return timed(async () => {
        const { bytesCopied } = await runtime.rebase(mine, { backing: bases.new, backingFormat: bases.format })
        if (bytesCopied !== bases.differingBytes) throw new Error(`copied ${bytesCopied}, not ${bases.differingBytes}`)
      })
    },
    async () => {
      await copyFile(empty, theirs)
      return timed(() => run('qemu-img', ['rebase', '-f', 'qcow2', '-b', bases.new, '-F', bases.format, theirs]))
    },
  )
  // Exits with 1, which rejects, when a byte differs.
  await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', mine, theirs])
  remove(bases, mine, theirs)
  return speed(goal, spread(times.ours, 'ms'), spread(times.theirs, 'ms'))
}

function remove(bases: Bases, ...others: string[]): void {
  for (const path of [bases.old, bases.new, ...others]) rmSync(path)
}

async function info(runtime: Runtime, rounds: number, folder: string): Promise<Figure> {
  const path = join(folder, 'info.qcow2')
  await runtime.images.create(path, { format: 'qcow2', size: '10G' })
  const perCall = (times: number[]) =>
    spread(
      times.map((ms) => ms / INFO_CALLS),
      'ms',
    )
  const times = await alternate(
    rounds,
    () => timed(() => repeat(async () => (await runtime.images.info(path)).virtualBytes)),
    () =>
      timed(() =>
        repeat(async () => {
          const { stdout } = await run('qemu-img', ['info', '--output=json', path])
          return (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size']
        }),
      ),
  )
  return speed(
    { name: 'rebase.info', unit: 'ratio', peer: 'a spawn of qemu-img info, its JSON parsed', goal: '>= 20' },
    perCall(times.ours),
    perCall(times.theirs),
  )
}

async function repeat(virtualBytes: () => Promise<number>): Promise<void> {
  for (let i = 0; i < INFO_CALLS; i++) {
    if ((await virtualBytes()) !== 10 * 2 ** 30) throw new Error('info tells another size')
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const from = performance.now()
  await work()
  return performance.now() - from
}
