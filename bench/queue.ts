// The queue's figures: events and output of many handles under load, and what a flood does to memory, order and timers.
import { alternate, cost, type Figure, type Goal, judge, type Spread, speed, spread } from './measure.js'
import type { Flooded } from './queue/flood.js'
import type { Load, Measured } from './queue/side.js'
import type { Timers } from './queue/timers.js'
import { inChild } from './support/child.js'

const EACH_EVENT = 'one ThreadSafeFunction call for each event'
const EACH_CHUNK = 'one ThreadSafeFunction call for each chunk'

type Work = Omit<Load, 'side'>
/** Handles enough for their records to fill a queue of the default capacity, whatever the number of producers. */
const ONE_PRODUCER: Work = { producers: 1, handles: 60, count: 1_200_000, chunk: 0 }
const FOUR_PRODUCERS: Work = { producers: 4, handles: 15, count: 300_000, chunk: 0 }
/** Two executions' output and error streams. */
const SMALL_CHUNKS: Work = { producers: 1, handles: 4, count: 480_000, chunk: 64 }
const BIG_CHUNKS: Work = { producers: 1, handles: 4, count: 48_000, chunk: 4096 }

export async function queue(rounds: number): Promise<Figure[]> {
  const one = await measure(rounds, ONE_PRODUCER)
  const four = await measure(rounds, FOUR_PRODUCERS)
  const small = await measure(rounds, SMALL_CHUNKS)
  const big = await measure(rounds, BIG_CHUNKS)
  const unit = 'ratio'
  return [
    speed({ name: 'queue.events_per_second', unit, peer: EACH_EVENT, goal: '>= 6' }, one.ours.time, one.theirs.time),
    cost({ name: 'queue.cpu_per_event', unit, peer: EACH_EVENT, goal: '<= 0.18' }, one.ours.cpu, one.theirs.cpu),
    speed(
      { name: 'queue.events_four_producers', unit, peer: EACH_EVENT, goal: '>= 4' },
      four.ours.time,
      four.theirs.time,
    ),
    speed({ name: 'queue.lanes_64b', unit, peer: EACH_CHUNK, goal: '>= 10' }, small.ours.time, small.theirs.time),
    speed({ name: 'queue.lanes_4k', unit, peer: EACH_CHUNK, goal: '>= 1.3' }, big.ours.time, big.theirs.time),
    ...(await flooded(rounds)),
    await timers(rounds),
  ]
}

interface Side {
  readonly time: Spread
  readonly cpu: Spread
}

async function measure(rounds: number, work: Work): Promise<{ ours: Side; theirs: Side }> {
  const side = new URL('queue/side.js', import.meta.url)
  const { ours, theirs } = await alternate(
    rounds,
    () => inChild<Measured>(side, { ...work, side: 'ours' }),
    () => inChild<Measured>(side, { ...work, side: 'theirs' }),
  )
  const unit = work.chunk > 0 ? 'ns per chunk' : 'ns per event'
  const sideOf = (all: Measured[]): Side => ({
    time: spread(
      all.map(({ ns }) => ns),
      unit,
    ),
    cpu: spread(
      all.map(({ cpuNs }) => cpuNs),
      unit,
    ),
  })
  return { ours: sideOf(ours), theirs: sideOf(theirs) }
}

async function flooded(rounds: number): Promise<Figure[]> {
  const child = new URL('queue/flood.js', import.meta.url)
  const { ours, theirs } = await alternate(
    rounds,
    () => inChild<Flooded>(child, { side: 'ours' }),
    () => inChild<Flooded>(child, { side: 'theirs' }),
  )
  const growth = spread(
    ours.map(({ rssGrowthMib }) => rssGrowthMib),
    'MiB',
  )
  const peerGrowth = spread(
    theirs.map(({ rssGrowthMib }) => rssGrowthMib),
    'MiB',
  )
  const wrong = ours.map((round) => round.wrong)
  const memory: Goal = { name: 'queue.flood_rss_growth_mib', unit: 'MiB', peer: EACH_EVENT, goal: '<= 4' }
  const order: Goal = {
    name: 'queue.flood_lost',
    unit: 'events',
    peer: 'the numbers that the producers gave them',
    goal: '<= 0',
  }
  return [
    judge(memory, growth.median, growth, peerGrowth),
    // The sum, not the median: once is too often.
    judge(
      order,
      wrong.reduce((sum, each) => sum + each, 0),
      spread(wrong, 'events'),
    ),
  ]
}

async function timers(rounds: number): Promise<Figure> {
  const goal: Goal = { name: 'queue.timer_delay_ms', unit: 'ms', peer: 'the same timers in an idle loop', goal: '<= 2' }
  const child = new URL('queue/timers.js', import.meta.url)
  const all: Timers[] = []
  for (let round = 0; round < rounds; round++) all.push(await inChild<Timers>(child, {}))
  const beyond = spread(
    all.map(({ floodedMs, idleMs }) => floodedMs - idleMs),
    'ms',
  )
  return judge(
    goal,
    beyond.median,
    spread(
      all.map(({ floodedMs }) => floodedMs),
      'ms',
    ),
    spread(
      all.map(({ idleMs }) => idleMs),
      'ms',
    ),
  )
}
