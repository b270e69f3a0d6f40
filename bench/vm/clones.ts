// Of one snapshot with memory: a clone up to its first exec, what eight of them take, and how long the source stood still.
import type { Box } from 'sluicebox'
import { cost, type Figure, judge, spread } from '../measure.js'
import { compareBoots, firstExec } from './boot.js'
import { MIB, memoryOfEight } from './memory.js'
import type { Bench } from './subject.js'

export async function clones({ rounds, create }: Bench): Promise<Figure[]> {
  const box = await create()
  await box.run(['true'])
  const paused = await pauses(box, rounds)
  const { id: from } = await box.snapshot('warm', { memory: true })
  const clone = () => box.clone({ from })
  // What the first of them makes is there for the others.
  await firstExec(clone)
  const peer = 'a cold boot up to its first exec'
  const boot = await compareBoots(
    rounds,
    { name: 'vm.clone_vs_cold', unit: 'ratio', peer, goal: '<= 0.1' },
    () => firstExec(clone),
    () => firstExec(create),
  )
  const memory = { ours: await memoryOfEight(clone), theirs: await memoryOfEight(create) }
  await box.remove({ force: true })
  const pause = spread(paused, 'ms')
  return [
    boot,
    cost(
      { name: 'vm.clone8_pss', unit: 'ratio', peer: 'eight machines that booted', goal: '<= 0.25' },
      spread([memory.ours / MIB], 'MiB'),
      spread([memory.theirs / MIB], 'MiB'),
    ),
    judge(
      { name: 'vm.snapshot_pause_ms', unit: 'ms', peer: 'none: how long the guest stood still', goal: '<= 100' },
      pause.median,
      pause,
    ),
  ]
}

async function pauses(box: Box, rounds: number): Promise<number[]> {
  const paused: number[] = []
  await whileItWrites(box, async () => {
    for (let round = 0; round < rounds; round++) {
      const { name, pausedMs } = await box.snapshot(undefined, { memory: true })
      paused.push(pausedMs)
      await box.snapshots.remove(name)
    }
  })
  return paused
}

export async function whileItWrites(box: Box, work: () => Promise<void>): Promise<void> {
  const writer = await box.exec(['sh', '-c', 'while :; do date > /root/f; sync; sleep 0.05; done'])
  await work()
  await writer.kill('SIGKILL')
  await writer.wait()
}
