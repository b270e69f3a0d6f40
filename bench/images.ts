// The figures of images: each operation in this process against qemu-img, on the same files with the page cache warm. What writes,
// writes durably on both sides: qemu-img convert alone would leave its target to the kernel, so it is told to flush it.
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type ConvertOptions, Runtime } from 'sluicebox'
import { makeComb, makeRaw } from './images/disks.js'
import { alternate, cost, type Figure, type Goal, judge, speed, spread } from './measure.js'
import { moves } from './rebase.js'
import { inFolder } from './support/folder.js'

const run = promisify(execFile)
const command = fileURLToPath(new URL('cli/main.js', import.meta.resolve('sluicebox')))
const CALLS = 10
const PLAIN_MIB = 512
const PACKED_MIB = 128
const unit = 'ratio'

interface Bench {
  readonly runtime: Runtime
  readonly rounds: number
  readonly file: (name: string) => string
}

export const images = (rounds: number): Promise<Figure[]> =>
  inFolder(async (folder) => {
    await using runtime = new Runtime()
    const bench: Bench = { runtime, rounds, file: (name) => join(folder, name) }
    return [
      ...(await small(bench)),
      ...(await plainConversions(bench)),
      ...(await packedConversions(bench)),
      ...(await rebases(bench, folder)),
      await checkOfOneTebibyte(bench),
      await mapOfFragments(bench),
    ]
  })

/** What a program does often: each side does it ten times, one after the other. */
async function small({ runtime, rounds, file }: Bench): Promise<Figure[]> {
  const path = file('info.qcow2')
  await runtime.images.create(path, { format: 'qcow2', size: '10G' })
  const info = await timesOf(
    rounds,
    () => repeat(() => runtime.images.info(path)),
    () => repeat(async () => JSON.parse((await run('qemu-img', ['info', '--output=json', path])).stdout)),
  )
  const shell = await timesOf(
    rounds,
    () => repeat(() => run(process.execPath, [command, 'image', 'info', '--output=json', path])),
    () => repeat(() => run('qemu-img', ['info', '--output=json', path])),
  )
  const ours = (path: string) => runtime.images.create(path, { format: 'qcow2', size: '10G', overwrite: true })
  const theirs = (path: string) => run('qemu-img', ['create', '-q', '-f', 'qcow2', path, '10G'])
  const made = (n: number): string => file(`made-${n}.qcow2`)
  const clear = async (): Promise<void> => {
    for (let n = 0; n < CALLS; n++) rmSync(made(n), { force: true })
  }
  const create = await timesOf(
    rounds,
    () => repeat((n) => ours(made(n))),
    () => repeat((n) => theirs(made(n))),
    { ours: clear, theirs: clear },
  )
  const over = await timesOf(
    rounds,
    () => repeat(() => ours(made(0))),
    () => repeat(() => theirs(made(0))),
  )
  return [
    figure('images.info_in_process', '>= 20', 'a spawn of qemu-img info, its JSON parsed', info),
    cost(
      { name: 'images.info_cli', unit, peer: 'qemu-img info', goal: '<= 15' },
      spread(shell.ours, 'ms'),
      spread(shell.theirs, 'ms'),
    ),
    figure('images.create', '>= 5', 'a spawn of qemu-img create, which flushes nothing', create),
    figure('images.create_over', 'told', 'the same, over an image that is there', over),
  ]
}

async function plainConversions(bench: Bench): Promise<Figure[]> {
  const { runtime, rounds, file } = bench
  const [raw, qcow2] = [file('plain.raw'), file('plain.qcow2')]
  await makeRaw(raw, PLAIN_MIB, 'random')
  const there = await conversion(bench, raw, 'raw', { format: 'qcow2' })
  await runtime.images.convert(raw, qcow2, { format: 'qcow2', sourceFormat: 'raw' })
  const back = await conversion(bench, qcow2, 'qcow2', { format: 'raw' })
  const vhdx = await conversion(bench, raw, 'raw', { format: 'vhdx' })
  const compare = await timesOf(
    rounds,
    async () => {
      const { identical } = await runtime.images.compare(raw, qcow2, { formatA: 'raw' })
      if (!identical) throw new Error('the copies differ')
    },
    () => run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', raw, qcow2]),
  )
  const peak = await peakMemory(bench, raw)
  rmSync(raw)
  rmSync(qcow2)
  return [
    figure('images.convert_raw_qcow2', '>= 1.2', 'qemu-img convert -t writeback', there),
    figure('images.convert_qcow2_raw', '>= 1.2', 'qemu-img convert -t writeback', back),
    figure('images.convert_vhdx', '>= 1.2', 'qemu-img convert -t writeback, of raw', vhdx),
    figure('images.compare', '>= 1.5', 'qemu-img compare', compare),
    peak,
  ]
}

async function packedConversions(bench: Bench): Promise<Figure[]> {
  const { runtime, file } = bench
  const [text, half, packed] = [file('text.raw'), file('half.raw'), file('packed.qcow2')]
  await makeRaw(text, PACKED_MIB, 'text')
  await makeRaw(half, PACKED_MIB, 'half')
  const compress: ConvertOptions = { format: 'qcow2', compress: true }
  const ofText = await conversion(bench, text, 'raw', compress)
  const ofHalf = await conversion(bench, half, 'raw', compress)
  const stream = await conversion(bench, text, 'raw', { format: 'vmdk', subformat: 'streamOptimized' })
  await runtime.images.convert(text, packed, { ...compress, sourceFormat: 'raw' })
  const unpack = await conversion(bench, packed, 'qcow2', { format: 'raw' })
  for (const path of [text, half, packed]) rmSync(path)
  return [
    figure('images.convert_compress', '>= 1.7', 'qemu-img convert -c -t writeback, text', ofText),
    figure('images.convert_compress_half', '>= 3', 'qemu-img convert -c -t writeback, half of it random', ofHalf),
    figure('images.convert_vmdk_stream', '>= 1.2', 'qemu-img convert -t writeback, text', stream),
    figure('images.convert_decompress', '>= 2', 'qemu-img convert -t writeback, compressed text', unpack),
  ]
}

/** The same source to the same kind of target on both sides, and in the end the same bytes. */
async function conversion(
  { runtime, rounds, file }: Bench,
  source: string,
  sourceFormat: 'raw' | 'qcow2',
  options: ConvertOptions,
): Promise<Times> {
  const [mine, theirs] = [file('mine'), file('theirs')]
  const kind = options.format === 'vmdk' ? ['-o', `subformat=${options.subformat}`] : []
  const packed = options.compress ? ['-c'] : []
  const flags = ['-t', 'writeback', ...packed, '-f', sourceFormat, '-O', options.format, ...kind]
  const clear = async (target: string): Promise<void> => {
    rmSync(target, { force: true })
    await run('sync')
  }
  const times = await timesOf(
    rounds,
    () => runtime.images.convert(source, mine, { ...options, sourceFormat }),
    () => run('qemu-img', ['convert', ...flags, source, theirs]),
    { ours: () => clear(mine), theirs: () => clear(theirs) },
  )
  await run('qemu-img', ['compare', '-f', options.format, '-F', options.format, mine, theirs])
  rmSync(mine)
  rmSync(theirs)
  return times
}

async function rebases({ runtime, rounds }: Bench, folder: string): Promise<Figure[]> {
  const peer = 'qemu-img rebase'
  return [
    await moves(runtime, rounds, { name: 'images.rebase_sparse', unit, peer, goal: '>= 50' }, folder, {
      dataMib: 512,
      strideMib: 200,
      format: 'qcow2',
    }),
    await moves(runtime, rounds, { name: 'images.rebase_dense', unit, peer, goal: '>= 1.2' }, folder, {
      dataMib: 1024,
      strideMib: 1,
      format: 'raw',
    }),
  ]
}

/** A tenth of it is mapped, to clusters that take no space of their own: a check reads metadata only. */
async function checkOfOneTebibyte({ runtime, rounds, file }: Bench): Promise<Figure> {
  const path = file('large.qcow2')
  await runtime.images.create(path, { format: 'qcow2', size: '103G', preallocation: 'metadata' })
  await runtime.images.resize(path, '1T')
  const times = await timesOf(
    rounds,
    async () => {
      const { ok, allocatedClusters } = await runtime.images.check(path)
      if (!ok || allocatedClusters !== 103 * 16_384) throw new Error('the check found something')
    },
    () => run('qemu-img', ['check', '-q', path]),
  )
  rmSync(path)
  return figure('images.check_1t', '>= 2', 'qemu-img check', times)
}

async function mapOfFragments({ runtime, rounds, file }: Bench): Promise<Figure> {
  const [comb, path] = [file('comb.raw'), file('comb.qcow2')]
  await makeComb(comb, 256, 4096)
  await runtime.images.convert(comb, path, { format: 'qcow2', clusterSize: 4096, sourceFormat: 'raw' })
  rmSync(comb)
  const count = (extents: number): void => {
    if (extents !== 256 * 256) throw new Error(`the map has ${extents} extents`)
  }
  const times = await timesOf(
    rounds,
    async () => {
      let extents = 0
      for await (const _ of runtime.images.map(path)) extents++
      count(extents)
    },
    async () => {
      const { stdout } = await run('qemu-img', ['map', '--output=json', path], { maxBuffer: 2 ** 28 })
      count((JSON.parse(stdout) as unknown[]).length)
    },
  )
  rmSync(path)
  return figure('images.map_fragmented', '>= 2', 'a spawn of qemu-img map, its JSON parsed', times)
}

/** Of a whole process, so that everything counts; the larger of a plain and a compressed conversion. */
async function peakMemory({ rounds, file }: Bench, source: string): Promise<Figure> {
  const child = new URL('./images/peak-child.js', import.meta.url).pathname
  const peaks: number[] = []
  for (let round = 0; round < rounds; round++) {
    const { stdout } = await run('node', [child, source, file('peak'), round % 2 === 0 ? 'compress' : 'plain'])
    peaks.push(Number(stdout) / 2 ** 20)
  }
  rmSync(file('peak'))
  const ours = spread(peaks, 'MiB')
  const peer = 'none: how much a process grows while it converts'
  return judge({ name: 'images.peak_memory_mib', unit: 'MiB', peer, goal: '<= 64' }, Math.max(...peaks), ours)
}

interface Times {
  readonly ours: number[]
  readonly theirs: number[]
}

async function timesOf(
  rounds: number,
  ours: () => Promise<unknown>,
  theirs: () => Promise<unknown>,
  before: { ours?: () => Promise<void>; theirs?: () => Promise<void> } = {},
): Promise<Times> {
  const timed = (work: () => Promise<unknown>, prepare?: () => Promise<void>) => async () => {
    await prepare?.()
    const from = performance.now()
    await work()
    return performance.now() - from
  }
  return alternate(rounds, timed(ours, before.ours), timed(theirs, before.theirs))
}

function figure(name: string, goal: Goal['goal'], peer: string, { ours, theirs }: Times): Figure {
  return speed({ name, unit, peer, goal }, spread(ours, 'ms'), spread(theirs, 'ms'))
}

async function repeat(work: (n: number) => Promise<unknown>): Promise<void> {
  for (let n = 0; n < CALLS; n++) await work(n)
}
