// The figures of executions: the output of a program in a box against the same program under child_process, each side in a process of
// its own that sums every byte; what a stalled consumer costs; and how much a flood disturbs a neighbour.
import type { ExecSpec, ExecTimes, FloodTimes } from './exec/side.js'
import { alternate, cost, type Figure, type Goal, judge, speed, spread } from './measure.js'
import { inChild } from './support/child.js'

const side = new URL('./exec/side.js', import.meta.url)
const peer = "child_process.spawn with a 'data' listener"
const unit = 'ratio'

export async function exec(rounds: number): Promise<Figure[]> {
  const small = await output(rounds, { name: 'exec.stdout_64b', unit, peer, goal: '>= 2' }, 64, 8)
  const pages = await output(rounds, { name: 'exec.stdout_4k', unit, peer, goal: '>= 2' }, 4096, 128)
  const blocks = await output(rounds, { name: 'exec.stdout_64k', unit, peer, goal: '>= 0.9' }, 65536, 512)
  const framed = await output(rounds, { name: 'exec.stdout_framed_64k', unit, peer, goal: '>= 0.5' }, 65536, 512, true)
  return [
    small.speed,
    pages.speed,
    blocks.speed,
    framed.speed,
    cost(
      { name: 'exec.cpu_64k', unit, peer, goal: 'told' },
      spread(
        blocks.ours.map(({ cpuMs }) => cpuMs),
        'ms',
      ),
      spread(
        blocks.theirs.map(({ cpuMs }) => cpuMs),
        'ms',
      ),
    ),
    await stalled(rounds),
    await neighbour(rounds),
  ]
}

async function output(rounds: number, goal: Goal, chunk: number, mebibytes: number, framed = false) {
  const spec: ExecSpec = { work: 'output', chunk, bytes: mebibytes * 2 ** 20, framed }
  const times = await alternate(
    rounds,
    () => inChild<ExecTimes>(side, { ...spec, side: 'ours' }),
    () => inChild<ExecTimes>(side, { ...spec, side: 'theirs' }),
  )
  const perSide = (all: ExecTimes[]) =>
    spread(
      all.map(({ ms }) => ms),
      'ms',
    )
  return { ...times, speed: speed(goal, perSide(times.ours), perSide(times.theirs)) }
}

async function stalled(rounds: number): Promise<Figure> {
  const growth: number[] = []
  for (let round = 0; round < rounds; round++) {
    const spec: ExecSpec = { work: 'stalled', chunk: 65536, bytes: 200 * 2 ** 20, framed: false, side: 'ours' }
    growth.push((await inChild<{ mib: number }>(side, spec)).mib)
  }
  const ours = spread(growth, 'MiB')
  const goal: Goal = { name: 'exec.stalled_rss_growth_mib', unit: 'MiB', peer: 'none', goal: '<= 20' }
  return judge(goal, ours.median, ours)
}

async function neighbour(rounds: number): Promise<Figure> {
  const times: FloodTimes[] = []
  for (let round = 0; round < rounds; round++) {
    const spec: ExecSpec = { work: 'neighbour', chunk: 65536, bytes: 0, framed: false, side: 'ours' }
    times.push(await inChild<FloodTimes>(side, spec))
  }
  return cost(
    { name: 'exec.flood_neighbour_p99', unit, peer: 'the same execution alone, its p99', goal: '<= 5' },
    spread(
      times.map(({ floodedMs }) => floodedMs),
      'ms',
    ),
    spread(
      times.map(({ aloneMs }) => aloneMs),
      'ms',
    ),
  )
}
