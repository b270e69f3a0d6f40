// What one can say to a machine, and how fast, against ssh into the same guest: the bytes of a program, and a command that says nothing.
import { spawn } from 'node:child_process'
import type { Box } from 'sluicebox'
import { alternate, cost, type Figure, percentile, speed, spread } from '../measure.js'
import { MIB } from './memory.js'
import { makeSshDisk, type SshGuest, startSshGuest } from './ssh-guest.js'
import { type Bench, rootOf } from './subject.js'

const BLOCK = 256 * 1024
/** So that a round of either side takes a second or more. */
const MEBIBYTES = { ours: 128, theirs: 16 }
/** A round's time is their median: one is at the mercy of the scheduler. */
const RUNS = 10
const THROUGH = 'ssh into the same guest over QEMU’s user network, one connection that is open'

export async function toSsh(bench: Bench): Promise<Figure[]> {
  const { folder, memoryMib, rounds, runtime } = bench
  const disk = await makeSshDisk(folder)
  await using box = await runtime.create(rootOf(disk, memoryMib))
  await using guest = await startSshGuest(bench, disk)
  return [await output(rounds, box, guest), await roundTrip(rounds, box, guest)]
}

const writer = (mebibytes: number) => {
  const count = (mebibytes * MIB) / BLOCK
  return ['dd', 'if=/dev/zero', `bs=${BLOCK}`, `count=${count}`]
}

async function output(rounds: number, box: Box, guest: SshGuest): Promise<Figure> {
  /** Milliseconds for a MiB. */
  const each = async (mebibytes: number, bytes: (command: string[]) => Promise<number>) => {
    const from = performance.now()
    const got = await bytes(writer(mebibytes))
    if (got !== mebibytes * MIB) throw new Error(`${got} bytes came of ${mebibytes * MIB}`)
    return (performance.now() - from) / mebibytes
  }
  const times = await alternate(
    rounds,
    () => each(MEBIBYTES.ours, (command) => outputOfBox(box, command)),
    () => each(MEBIBYTES.theirs, (command) => outputOfSsh(guest, command)),
  )
  return speed(
    { name: 'vm.stdout', unit: 'ratio', peer: THROUGH, goal: '>= 5' },
    spread(times.ours, 'ms/MiB'),
    spread(times.theirs, 'ms/MiB'),
  )
}

async function outputOfBox(box: Box, command: string[]): Promise<number> {
  let bytes = 0
  const execution = await box.exec(command)
  execution.on('stdout', (chunk) => {
    bytes += chunk.length
  })
  const { exitCode } = await execution.wait()
  if (exitCode !== 0) throw new Error(`the writer ended with ${exitCode}`)
  return bytes
}

function outputOfSsh(guest: SshGuest, command: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    let bytes = 0
    const child = spawn(...guest.over([...command, '2>/dev/null']), { stdio: ['ignore', 'pipe', 'inherit'] })
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve(bytes) : reject(new Error(`ssh ended with ${code}`))))
  })
}

async function roundTrip(rounds: number, box: Box, guest: SshGuest): Promise<Figure> {
  const median = async (once: () => Promise<unknown>) => {
    const times: number[] = []
    for (let i = 0; i < RUNS; i++) {
      const from = performance.now()
      await once()
      times.push(performance.now() - from)
    }
    return percentile(times, 0.5)
  }
  const ours = async () => {
    const { exitCode } = await box.run(['true'])
    if (exitCode !== 0) throw new Error(`true ended with ${exitCode}`)
  }
  const times = await alternate(
    rounds,
    () => median(ours),
    () => median(() => outputOfSsh(guest, ['true'])),
  )
  return cost(
    { name: 'vm.exec_round_trip', unit: 'ratio', peer: THROUGH, goal: '<= 0.5' },
    spread(times.ours, 'ms'),
    spread(times.theirs, 'ms'),
  )
}
