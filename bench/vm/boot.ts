// How soon a machine answers: a cold one to QEMU alone, one from a pool and one of a kind that is known to a cold one.
import { join } from 'node:path'
import { type Box, Runtime } from 'sluicebox'
import { alternate, cost, type Figure, type Goal, spread } from '../measure.js'
import type { GuestKernel } from './guest-kernel.js'
import { isUp, plainInitrd, startPlain, UP } from './plain-machine.js'
import { type Bench, rootOf } from './subject.js'

const COLD = 'a cold boot up to its first exec'

export async function firstExec(make: () => Promise<Box>): Promise<number> {
  let box: Box | undefined
  const ms = await timed(async () => {
    box = await make()
    const { exitCode } = await box.run(['true'])
    if (exitCode !== 0) throw new Error(`true ended with ${exitCode}`)
  })
  await box?.remove({ force: true })
  return ms
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const from = performance.now()
  await work()
  return performance.now() - from
}

export async function compareBoots(
  rounds: number,
  goal: Goal,
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<Figure> {
  const times = await alternate(rounds, ours, theirs)
  return cost(goal, spread(times.ours, 'ms'), spread(times.theirs, 'ms'))
}

export async function boots(bench: Bench): Promise<Figure[]> {
  return [await coldVsPlain(bench), await poolVsCold(bench), await templateVsCold(bench)]
}

async function coldVsPlain({ rounds, folder, kernel, memoryMib, create }: Bench): Promise<Figure> {
  const peer = 'QEMU alone with the same kernel and a busybox initrd, up to its first command'
  const goal = { name: 'vm.cold_vs_plain', unit: 'ratio', peer, goal: '<= 1.1' } as const
  const plain = await plainBoot(folder, kernel, memoryMib)
  return compareBoots(rounds, goal, () => firstExec(create), plain)
}

/** From QEMU's start to the script's first words. */
async function plainBoot(folder: string, kernel: GuestKernel, memoryMib: number): Promise<() => Promise<number>> {
  const lines = ['mkdir /dev', 'mount -t devtmpfs none /dev', `echo ${UP} > /dev/ttyS0`, 'poweroff -f']
  const script = ['#!/bin/busybox sh', ...lines.map((line) => `/bin/busybox ${line}`), ''].join('\n')
  const initrd = await plainInitrd(join(folder, 'plain'), script)
  return async () => {
    const child = startPlain({ kernel: kernel.image, initrd, memoryMib })
    const ended = new Promise((resolve) => child.once('close', resolve))
    const ms = await timed(() => isUp(child))
    await ended
    return ms
  }
}

async function poolVsCold({ rounds, runtime, disk, memoryMib, create }: Bench): Promise<Figure> {
  const goal = { name: 'vm.pool_vs_cold', unit: 'ratio', peer: COLD, goal: '<= 0.02' } as const
  await using pool = await runtime.pool({ size: 1, ...rootOf(disk, memoryMib) })
  const whenFull = async (make: () => Promise<Box>) => {
    while (pool.ready === 0) await new Promise((resolve) => setTimeout(resolve, 20))
    return firstExec(make)
  }
  return await compareBoots(
    rounds,
    goal,
    () => whenFull(() => pool.acquire()),
    () => whenFull(create),
  )
}

/** The second box of a kind, which goes on from the boot of the first. */
async function templateVsCold({ rounds, folder, disk, memoryMib, create }: Bench): Promise<Figure> {
  const goal = { name: 'vm.template_vs_cold', unit: 'ratio', peer: COLD, goal: 'told' } as const
  await using runtime = new Runtime({ home: join(folder, 'templates'), isolation: 'vm' })
  const like = () => runtime.create(rootOf(disk, memoryMib))
  // The first makes the template, the second reads it into memory.
  for (const _ of [1, 2]) await firstExec(like)
  return await compareBoots(
    rounds,
    goal,
    () => firstExec(like),
    () => firstExec(create),
  )
}
