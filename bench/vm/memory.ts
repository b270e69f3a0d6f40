// What a machine takes of this host's memory, as the kernel shares it out among those that map it (PSS).
import { readdirSync, readFileSync } from 'node:fs'
import type { Box } from 'sluicebox'
import { type Figure, judge, spread } from '../measure.js'
import type { Bench } from './subject.js'

export const MIB = 2 ** 20

/** What all processes of the box take beyond the guest's memory. */
export async function overhead({ create, memoryMib }: Bench): Promise<Figure> {
  const box = await create()
  // A guest that has touched all of its memory: what is more is not its own.
  await box.shell('dd if=/dev/zero of=/dev/shm/fill bs=1M count=160 2>/dev/null; rm -f /dev/shm/fill')
  const { guest, all } = memoryOf(box.id, memoryMib * MIB)
  await box.remove({ force: true })
  const ours = spread([(all - guest) / MIB], 'MiB')
  const peer = 'none: QEMU and keeper beside the guest’s memory (PSS)'
  return judge({ name: 'vm.overhead_mib', unit: 'MiB', peer, goal: '<= 40' }, ours.median, ours)
}

/** PSS of all that eight boxes run, each past its first exec. */
export async function memoryOfEight(make: () => Promise<Box>): Promise<number> {
  const boxes: Box[] = []
  for (let n = 0; n < 8; n++) {
    const box = await make()
    await box.run(['true'])
    boxes.push(box)
  }
  const all = boxes.reduce((sum, { id }) => sum + memoryOf(id, 0).all, 0)
  for (const box of boxes) await box.remove({ force: true })
  return all
}

/** Of the keeper and what it started, and of it what is the guest's memory: QEMU's one mapping of that size. */
function memoryOf(id: string, guestBytes: number): { guest: number; all: number } {
  let [guest, all] = [0, 0]
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (!textOf(`/proc/${pid}/cgroup`).includes(id) && !textOf(`/proc/${pid}/cmdline`).includes(id)) continue
    for (const block of textOf(`/proc/${pid}/smaps`).split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)) {
      const pss = Number(/^Pss:\s+(\d+)/m.exec(block)?.[1] ?? 0) * 1024
      const size = Number(/^Size:\s+(\d+)/m.exec(block)?.[1] ?? 0) * 1024
      all += pss
      if (size === guestBytes) guest += pss
    }
  }
  return { guest, all }
}

/** Empty of a process that has ended. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
