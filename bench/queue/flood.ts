// A child: what a flood does while the event loop is blocked. Usage: flood.js '{"side": "ours" | "theirs"}'
import { AsyncResource } from 'node:async_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { Runtime } from 'sluicebox'
import { report, task } from '../support/child.js'
import { drainOf, generationOf, testing } from '../support/door.js'

export interface Flooded {
  readonly rssGrowthMib: number
  /** Events lost, repeated or out of order, and bytes of output that were not the next ones. */
  readonly wrong: number
}

const PRODUCERS = 2
const HANDLES = 8
const BLOCKED_MS = 800
/** The two streams of one execution, each with the most that it may hold. */
const LANES = { lanes: 2, chunk: 4096, bytes: 2 ** 40, highWaterMark: 2 ** 20, patterned: true }
const ENDLESS = 2 ** 40

const { EventFlood, LaneFlood, Peer } = await testing()
report(task<{ side: string }>().side === 'ours' ? await ours() : await theirs())

async function ours(): Promise<Flooded> {
  const runtime = new Runtime()
  const drain = await drainOf(runtime)
  const events = new EventFlood(drain.core, { producers: PRODUCERS, handles: HANDLES, channels: 64, count: 0 })
  const lanes = new LaneFlood(drain.core, LANES)
  const scope = new AsyncResource('bench', { requireManualDestroy: true })
  let received = 0
  let wrong = 0

  for (const id of events.ids) {
    let next = 0
    const onRecord = (_kind: number, _flags: number, _length: number, low: number): void => {
      received++
      if (low !== next) wrong++
      next = low + 1
    }
    drain.add(id, { generation: generationOf(id), scope, onRecord })
  }
  lanes.ids.forEach((id, lane) => {
    let next = 0
    const onRecord = (): void => {
      const { chunk, more } = lanes.read(lane)
      for (const byte of chunk) {
        if (byte !== next) wrong++
        next = (byte + 1) % 251
      }
      if (more) onRecord()
    }
    drain.add(id, { generation: generationOf(id), scope, onRecord })
  })

  drain.hold()
  events.start()
  lanes.start()
  await sleep(200)
  const rssGrowthMib = block()
  await sleep(50)
  events.stop()
  for (const id of lanes.ids) drain.remove(id)
  lanes.stop()
  while (received < events.posted() && (await progressed(() => received)));
  drain.release()
  return { rssGrowthMib, wrong: wrong + Math.abs(events.posted() - received) }
}

/** False when `count` stood still for a second. */
async function progressed(count: () => number): Promise<boolean> {
  const before = count()
  for (let i = 0; i < 100; i++) {
    await sleep(10)
    if (count() !== before) return true
  }
  return false
}

async function theirs(): Promise<Flooded> {
  const flood = new Peer(() => {}, { producers: PRODUCERS, handles: HANDLES, count: ENDLESS, chunk: 0 })
  flood.start()
  await sleep(1)
  const rssGrowthMib = block()
  flood.stop()
  return { rssGrowthMib, wrong: 0 }
}

/** The most that resident memory grew by while the event loop was blocked. */
function block(): number {
  const before = process.memoryUsage.rss()
  const end = performance.now() + BLOCKED_MS
  let most = before
  while (performance.now() < end) most = Math.max(most, process.memoryUsage.rss())
  return (most - before) / 2 ** 20
}
