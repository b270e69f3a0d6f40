// One side of one round of the exec figures, in a process of its own.
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Box, Runtime } from 'sluicebox'
import { percentile } from '../measure.js'
import { report, task } from '../support/child.js'

export interface ExecSpec {
  readonly work: 'output' | 'stalled' | 'neighbour'
  /** Bytes in each write of the program. */
  readonly chunk: number
  readonly bytes: number
  readonly framed: boolean
  readonly side?: 'ours' | 'theirs'
}
export interface ExecTimes {
  readonly ms: number
  readonly cpuMs: number
}
export interface FloodTimes {
  readonly aloneMs: number
  readonly floodedMs: number
}

const NEIGHBOUR_RUNS = 100
const spec = task<ExecSpec>()
const writer = ['dd', 'if=/dev/zero', `bs=${spec.chunk}`, `count=${Math.floor(spec.bytes / spec.chunk)}`, 'status=none']

if (spec.framed) process.env.SLUICEBOX_TRANSPORT = 'framed'
if (spec.side === 'theirs') report(await measured(theirs))
else {
  const home = await mkdtemp(join(tmpdir(), 'sluicebox-bench-'))
  let result: object
  {
    await using runtime = new Runtime({ home })
    await using box = await runtime.create()
    const works = {
      output: () => measured(() => ours(box)),
      stalled: () => stalled(box),
      neighbour: () => neighbour(box),
    }
    result = await works[spec.work]()
  }
  await rm(home, { recursive: true })
  report(result)
}

async function measured(work: () => Promise<number>): Promise<ExecTimes> {
  const cpu = process.cpuUsage()
  const from = performance.now()
  const sum = await work()
  const ms = performance.now() - from
  const { user, system } = process.cpuUsage(cpu)
  if (sum !== spec.bytes) throw new Error(`summed to ${sum}, not ${spec.bytes}`)
  return { ms, cpuMs: (user + system) / 1000 }
}

/** Every byte is looked at; a zero counts as one, so that the sum tells the length. */
function sumOf(chunk: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < chunk.length; i++) sum += (chunk[i] as number) + 1
  return sum
}

async function ours(box: Box): Promise<number> {
  let sum = 0
  const execution = await box.exec(writer)
  execution.on('stdout', (chunk) => {
    sum += sumOf(chunk)
  })
  const { exitCode } = await execution.wait()
  if (exitCode !== 0) throw new Error(`the writer ended with ${exitCode}`)
  return sum
}

function theirs(): Promise<number> {
  return new Promise((resolve, reject) => {
    let sum = 0
    const child = spawn(writer[0] as string, writer.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.on('data', (chunk: Buffer) => {
      sum += sumOf(chunk)
    })
    child.on('error', reject)
    child.on('close', () => resolve(sum))
  })
}

/** How much this process grows while a program wants to write and nobody reads. */
async function stalled(box: Box): Promise<{ mib: number }> {
  await ours(box).catch(() => undefined) // warm: buffers, code
  const before = process.memoryUsage.rss()
  let peak = before
  const execution = await box.exec(writer)
  // The default bound of a stream is 1 MiB: what is held stops there, and the program with it.
  const until = performance.now() + 1000
  while (performance.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    peak = Math.max(peak, process.memoryUsage.rss())
  }
  await execution.kill('SIGKILL')
  await execution[Symbol.asyncDispose]()
  return { mib: (peak - before) / 2 ** 20 }
}

async function neighbour(box: Box): Promise<FloodTimes> {
  const times = async () => {
    const all: number[] = []
    for (let i = 0; i < NEIGHBOUR_RUNS; i++) {
      const from = performance.now()
      await box.run(['true'])
      all.push(performance.now() - from)
    }
    return percentile(all, 0.99)
  }
  await times()
  const aloneMs = await times()
  await using flood = await box.exec(['dd', 'if=/dev/zero', `bs=${spec.chunk}`, 'status=none'])
  flood.on('stdout', () => {})
  const floodedMs = await times()
  await flood.kill('SIGKILL')
  return { aloneMs, floodedMs }
}
