// The queue's figures: events and output of many handles under load, and what a flood does to memory, order and timers.
import { alternate, cost, type Figure, type Goal, speed, spread } from './measure.js'
import type { Load, Measured } from './queue/side.js'
import { inChild } from './support/child.js'

const side = new URL('queue/side.js', import.meta.url)
const TSFN = 'one ThreadSafeFunction call for each'

export async function queue(rounds: number): Promise<Figure[]> {
  return [
    ...(await oneProducer(rounds)),
    await throughput(
      rounds,
      { name: 'queue.events_four_producers', unit: 'ratio', peer: `${TSFN} event`, goal: '>= 4' },
      { producers: 4, handles: 2, count: 200_000, chunk: 0 },
    ),
    await throughput(
      rounds,
      { name: 'queue.lanes_64b', unit: 'ratio', peer: `${TSFN} chunk`, goal: '>= 10' },
      { producers: 1, handles: 4, count: 800_000, chunk: 64 },
    ),
    await throughput(
      rounds,
      { name: 'queue.lanes_4k', unit: 'ratio', peer: `${TSFN} chunk`, goal: '>= 1.3' },
      { producers: 1, handles: 4, count: 100_000, chunk: 4096 },
    ),
  ]
}

async function oneProducer(rounds: number): Promise<Figure[]> {
  const peer = `${TSFN} event`
  const { ours, theirs } = await measure(rounds, { producers: 1, handles: 8, count: 800_000, chunk: 0 })
  return [
    speed(
      { name: 'queue.events_per_second', unit: 'ratio', peer, goal: '>= 6' },
      spread(
        ours.map(({ ns }) => ns),
        'ns per event',
      ),
      spread(
        theirs.map(({ ns }) => ns),
        'ns per event',
      ),
    ),
    cost(
      { name: 'queue.cpu_per_event', unit: 'ratio', peer, goal: '<= 0.18' },
      spread(
        ours.map(({ cpuNs }) => cpuNs),
        'ns per event',
      ),
      spread(
        theirs.map(({ cpuNs }) => cpuNs),
        'ns per event',
      ),
    ),
  ]
}

async function throughput(rounds: number, goal: Goal, load: Omit<Load, 'side'>): Promise<Figure> {
  const { ours, theirs } = await measure(rounds, load)
  const unit = load.chunk > 0 ? 'ns per chunk' : 'ns per event'
  return speed(
    goal,
    spread(
      ours.map(({ ns }) => ns),
      unit,
    ),
    spread(
      theirs.map(({ ns }) => ns),
      unit,
    ),
  )
}

function measure(rounds: number, load: Omit<Load, 'side'>): Promise<{ ours: Measured[]; theirs: Measured[] }> {
  return alternate(
    rounds,
    () => inChild<Measured>(side, { ...load, side: 'ours' }),
    () => inChild<Measured>(side, { ...load, side: 'theirs' }),
  )
}
