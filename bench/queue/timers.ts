// A child: how late timers of 5 ms fire when nothing happens, and then under a flood without end. Usage: timers.js '{}'
import { Runtime } from 'sluicebox'
import { percentile } from '../measure.js'
import { report } from '../support/child.js'
import { drainOf, generationOf, testing } from '../support/door.js'
import { KINDS, Target } from './listeners.js'

/** The 99th percentile of their lateness. */
export interface Timers {
  readonly idleMs: number
  readonly floodedMs: number
}

const DELAY_MS = 5
const TIMERS = 100

const { EventFlood } = await testing()
const runtime = new Runtime()
const drain = await drainOf(runtime)
const tally = { sum: 0 }
const flood = new EventFlood(drain.core, { producers: 1, handles: 32, channels: 64, count: 0 })
for (const id of flood.ids) {
  const { scope, events } = new Target(tally)
  const onRecord = (_kind: number, flags: number, _length: number, low: number): void => {
    events.emit(KINDS[flags] as (typeof KINDS)[number], low)
  }
  drain.add(id, { generation: generationOf(id), scope, onRecord })
}

await lateness(TIMERS / 5)
const idleMs = percentile(await lateness(TIMERS), 0.99)
drain.hold()
flood.start()
await lateness(TIMERS / 5)
const before = flood.posted()
const floodedMs = percentile(await lateness(TIMERS), 0.99)
if (flood.posted() === before) throw new Error('the flood ran dry')
flood.stop()
drain.release()
report({ idleMs, floodedMs } satisfies Timers)

async function lateness(count: number): Promise<number[]> {
  const late: number[] = []
  while (late.length < count) late.push(await once())
  return late
}

function once(): Promise<number> {
  const due = performance.now() + DELAY_MS
  return new Promise((resolve) => setTimeout(() => resolve(performance.now() - due), DELAY_MS))
}
