// How long a guest stands still while its disk moves to another base under it.
import { closeSync, copyFileSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { type Figure, judge, spread } from '../measure.js'
import { whileItWrites } from './clones.js'
import { MIB } from './memory.js'
import type { Bench } from './subject.js'

export async function liveRebase({ rounds, folder, disk, runtime, create }: Bench): Promise<Figure> {
  const other = join(folder, 'other.raw')
  copyFileSync(disk, other)
  const file = openSync(other, 'r+')
  for (let at = 24 * MIB; at < 60 * MIB; at += MIB) writeSync(file, Buffer.alloc(65_536, 0xa5), 0, 65_536, at)
  closeSync(file)
  const box = await create()
  const paused: number[] = []
  await whileItWrites(box, async () => {
    for (let round = 0; round < rounds; round++) {
      const backing = round % 2 === 0 ? other : disk
      const { pausedMs } = await runtime.rebase(box, { backing, backingFormat: 'raw' })
      paused.push(pausedMs ?? Number.NaN)
    }
  })
  await box.remove({ force: true })
  const ours = spread(paused, 'ms')
  const peer = 'none: how long the guest stood still'
  return judge({ name: 'vm.live_rebase_pause_ms', unit: 'ms', peer, goal: '<= 100' }, ours.median, ours)
}
