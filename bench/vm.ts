// The figures of virtual machines: a cold boot, a box from a pool, a live rebase, and the memory that QEMU takes beside the guest's.
import { execFile, spawn } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Box, Runtime } from 'sluicebox'
import { makeGuestDisk } from '../examples/support/guest-disk.js'
import { alternate, cost, type Figure, judge, spread } from './measure.js'

const MIB = 2 ** 20
const MEMORY = 256 * MIB

export async function vm(rounds: number): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'sluicebox-bench-'))
  try {
    const disk = join(folder, 'root.raw')
    await makeGuestDisk(disk, 'bench')
    // Cold is what boots.
    await using runtime = new Runtime({ home: join(folder, 'home'), isolation: 'vm', templates: false })
    const create = () => runtime.create({ rootfs: { disk, format: 'raw' }, memory: MEMORY })
    const plain = await plainBoot(folder)
    return [
      await coldVsPlain(rounds, create, plain),
      await poolVsCold(rounds, runtime, disk, create),
      await templateVsCold(rounds, folder, disk, create),
      ...(await clones(rounds, create)),
      await liveRebase(rounds, folder, disk, runtime, create),
      await overhead(create),
    ]
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const from = performance.now()
  await work()
  return performance.now() - from
}

const firstExec = async (make: () => Promise<Box>): Promise<number> => {
  let box: Box | undefined
  const ms = await timed(async () => {
    box = await make()
    const { exitCode } = await box.run(['true'])
    if (exitCode !== 0) throw new Error(`true ended with ${exitCode}`)
  })
  await box?.remove({ force: true })
  return ms
}

async function coldVsPlain(rounds: number, create: () => Promise<Box>, plain: () => Promise<number>): Promise<Figure> {
  const times = await alternate(rounds, () => firstExec(create), plain)
  const peer = 'QEMU alone with the same kernel and a busybox initrd, up to its first command'
  return cost(
    { name: 'vm.cold_vs_plain', unit: 'ratio', peer, goal: '<= 1.1' },
    spread(times.ours, 'ms'),
    spread(times.theirs, 'ms'),
  )
}

async function poolVsCold(rounds: number, runtime: Runtime, disk: string, create: () => Promise<Box>): Promise<Figure> {
  await using pool = await runtime.pool({ size: 1, rootfs: { disk, format: 'raw' }, memory: MEMORY })
  const full = async () => {
    while (pool.ready === 0) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const acquire = async () => {
    await full()
    return firstExec(() => pool.acquire())
  }
  const cold = async () => {
    await full()
    return firstExec(create)
  }
  const times = await alternate(rounds, acquire, cold)
  const goal = {
    name: 'vm.pool_vs_cold',
    unit: 'ratio',
    peer: 'a cold boot up to its first exec',
    goal: '<= 0.02',
  } as const
  return cost(goal, spread(times.ours, 'ms'), spread(times.theirs, 'ms'))
}

/** The second box of a kind, which goes on from the boot of the first. */
async function templateVsCold(
  rounds: number,
  folder: string,
  disk: string,
  create: () => Promise<Box>,
): Promise<Figure> {
  await using runtime = new Runtime({ home: join(folder, 'templates'), isolation: 'vm' })
  const like = () => runtime.create({ rootfs: { disk, format: 'raw' }, memory: MEMORY })
  // The first makes the template, the second reads it into memory.
  for (const _ of [1, 2]) await firstExec(like)
  const times = await alternate(
    rounds,
    () => firstExec(like),
    () => firstExec(create),
  )
  const goal = {
    name: 'vm.template_vs_cold',
    unit: 'ratio',
    peer: 'a cold boot up to its first exec',
    goal: 'told',
  } as const
  return cost(goal, spread(times.ours, 'ms'), spread(times.theirs, 'ms'))
}

/** Of one snapshot with memory: a clone up to its first exec, what eight of them take, and how long the source stood still. */
async function clones(rounds: number, create: () => Promise<Box>): Promise<Figure[]> {
  const box = await create()
  await box.run(['true'])
  const writer = await box.exec(['sh', '-c', 'while :; do date > /root/f; sync; sleep 0.05; done'])
  const paused: number[] = []
  for (let round = 0; round < rounds; round++) {
    const { name, pausedMs } = await box.snapshot(undefined, { memory: true })
    paused.push(pausedMs)
    await box.snapshots.remove(name)
  }
  await writer.kill('SIGKILL')
  await writer.wait()
  const { id: from } = await box.snapshot('warm', { memory: true })
  const clone = () => box.clone({ from })
  // What the first of them makes is there for the others.
  await firstExec(clone)
  const times = await alternate(
    rounds,
    () => firstExec(clone),
    () => firstExec(create),
  )
  const memory = { ours: await memoryOfEight(clone), theirs: await memoryOfEight(create) }
  await box.remove({ force: true })
  const pause = spread(paused, 'ms')
  return [
    cost(
      { name: 'vm.clone_vs_cold', unit: 'ratio', peer: 'a cold boot up to its first exec', goal: '<= 0.1' },
      spread(times.ours, 'ms'),
      spread(times.theirs, 'ms'),
    ),
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

/** PSS of all that eight boxes run, each past its first exec. */
async function memoryOfEight(make: () => Promise<Box>): Promise<number> {
  const boxes: Box[] = []
  for (let n = 0; n < 8; n++) {
    const box = await make()
    await box.run(['true'])
    boxes.push(box)
  }
  const all = boxes.reduce((sum, { id }) => sum + memoryOf(id).all, 0)
  for (const box of boxes) await box.remove({ force: true })
  return all
}

async function liveRebase(
  rounds: number,
  folder: string,
  disk: string,
  runtime: Runtime,
  create: () => Promise<Box>,
): Promise<Figure> {
  const other = join(folder, 'other.raw')
  copyFileSync(disk, other)
  const file = openSync(other, 'r+')
  for (let at = 24 * MIB; at < 60 * MIB; at += MIB) writeSync(file, Buffer.alloc(65_536, 0xa5), 0, 65_536, at)
  closeSync(file)
  const box = await create()
  const writer = await box.exec(['sh', '-c', 'while :; do date > /root/f; sync; sleep 0.05; done'])
  const paused: number[] = []
  for (let round = 0; round < rounds; round++) {
    const { pausedMs } = await runtime.rebase(box, { backing: round % 2 === 0 ? other : disk, backingFormat: 'raw' })
    paused.push(pausedMs ?? Number.NaN)
  }
  await writer.kill('SIGKILL')
  await box.remove({ force: true })
  const ours = spread(paused, 'ms')
  return judge(
    { name: 'vm.live_rebase_pause_ms', unit: 'ms', peer: 'none: how long the guest stood still', goal: '<= 100' },
    ours.median,
    ours,
  )
}

/** What all processes of the box take beyond the guest's memory. */
async function overhead(create: () => Promise<Box>): Promise<Figure> {
  const box = await create()
  // A guest that has touched all of its memory: what is more is not its own.
  await box.shell('dd if=/dev/zero of=/dev/shm/fill bs=1M count=160 2>/dev/null; rm -f /dev/shm/fill')
  const { guest, all } = memoryOf(box.id)
  await box.remove({ force: true })
  const ours = spread([(all - guest) / MIB], 'MiB')
  return judge(
    {
      name: 'vm.overhead_mib',
      unit: 'MiB',
      peer: 'none: QEMU and keeper beside the guest’s memory (PSS)',
      goal: '<= 40',
    },
    ours.median,
    ours,
  )
}

/** PSS of the keeper and what it started, and of it what is the guest's memory: QEMU's one mapping of that size. */
function memoryOf(id: string): { guest: number; all: number } {
  let [guest, all] = [0, 0]
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (!textOf(`/proc/${pid}/cgroup`).includes(id) && !textOf(`/proc/${pid}/cmdline`).includes(id)) continue
    for (const block of textOf(`/proc/${pid}/smaps`).split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)) {
      const pss = Number(/^Pss:\s+(\d+)/m.exec(block)?.[1] ?? 0) * 1024
      const size = Number(/^Size:\s+(\d+)/m.exec(block)?.[1] ?? 0) * 1024
      all += pss
      if (size === MEMORY) guest += pss
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

/** A QEMU whose initrd is busybox with a script: the time from its start to the script's first words. */
async function plainBoot(folder: string): Promise<() => Promise<number>> {
  const tree = join(folder, 'initrd')
  mkdirSync(join(tree, 'bin'), { recursive: true })
  copyFileSync('/bin/busybox', join(tree, 'bin/busybox'))
  writeFileSync(
    join(tree, 'init'),
    '#!/bin/busybox sh\n/bin/busybox mkdir /dev\n/bin/busybox mount -t devtmpfs none /dev\n/bin/busybox echo up > /dev/ttyS0\n/bin/busybox poweroff -f\n',
    { mode: 0o755 },
  )
  const initrd = join(folder, 'plain.cpio')
  await promisify(execFile)('/bin/busybox', ['sh', '-c', `cd ${tree} && find . | busybox cpio -o -H newc > ${initrd}`])
  const args = [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-accel', 'tcg', '-m', '256', '-smp', '1'],
    ...[
      '-M',
      'q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off,graphics=off',
      '-kernel',
      kernelImage(),
      '-initrd',
      initrd,
    ],
    ...[
      '-append',
      'console=ttyS0 quiet loglevel=3 panic=-1 reboot=t random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests nokaslr mitigations=off',
    ],
    ...['-serial', 'stdio'],
  ]
  return async () => {
    const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = new Promise((resolve) => child.once('close', resolve))
    let text = ''
    const ms = await timed(async () => {
      for await (const chunk of child.stdout) {
        text += chunk
        if (/^up/m.test(text)) return
      }
      throw new Error(`the plain machine did not come up: ${text}`)
    })
    child.stdout.resume()
    await ended
    return ms
  }
}

function kernelImage(): string {
  const folders = [new URL('../../guest', import.meta.url).pathname, '/boot']
  for (const folder of folders) {
    const image = existsSync(folder) && readdirSync(folder).find((name) => name.startsWith('vmlinuz-'))
    if (image) return join(folder, image)
  }
  throw new Error('there is no kernel of virtual machines: see (await runtime.doctor()).problems')
}
