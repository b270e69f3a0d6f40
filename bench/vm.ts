// The figures of virtual machines: how soon they answer, how fast one talks to them, clones, a live rebase, and what QEMU takes.
import type { Figure } from './measure.js'
import { boots } from './vm/boot.js'
import { clones } from './vm/clones.js'
import { liveRebase } from './vm/live-rebase.js'
import { overhead } from './vm/memory.js'
import { toSsh } from './vm/ssh.js'
import { fetchSshParts } from './vm/ssh-guest.js'
import { withBench } from './vm/subject.js'

export async function vm(rounds: number): Promise<Figure[]> {
  await fetchSshParts()
  return withBench(rounds, async (bench) => [
    ...(await boots(bench)),
    ...(await toSsh(bench)),
    ...(await clones(bench)),
    await liveRebase(bench),
    await overhead(bench),
  ])
}
