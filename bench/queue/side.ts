// A child: one side of a throughput figure, warmed up and then measured. Usage: side.js '<Load as JSON>'
import { Runtime } from 'sluicebox'
import { report, task } from '../support/child.js'
import { type Drain, drainOf, generationOf, testing } from '../support/door.js'
import { expectedSum, KINDS, Reader, type Tally, Target } from './listeners.js'

export interface Load {
  readonly side: 'ours' | 'theirs'
  readonly producers: number
  /** Of each producer. */
  readonly handles: number
  /** Events, or chunks, of each producer. */
  readonly count: number
  /** Bytes in each chunk of output; 0: events without bytes. */
  readonly chunk: number
}

/** Of one event or chunk. */
export interface Measured {
  readonly ns: number
  readonly cpuNs: number
}

/** Each of two warm-ups, as a part of what is measured. Two, because new listeners make the compilers think again. */
const WARM_UP = 0.5
/** A source may have as many records queued. */
const CHANNELS = 64
const HIGH_WATER_MARK = 2 ** 20
/** As Node.js's own streams do: the allocator has such a buffer at hand, a bigger one is mapped anew, page by page. */
const LONGEST_CHUNK = 2 ** 16
const CHUNKS_A_TURN = HIGH_WATER_MARK / LONGEST_CHUNK

const load = task<Load>()
const { EventFlood, LaneFlood, Peer } = await testing()
const deliver = load.side === 'theirs' ? peer : load.chunk > 0 ? lanes : events

const runtime = new Runtime()
const drain: Drain = await drainOf(runtime)
for (let i = 0; i < 2; i++) await measure({ ...load, count: load.count * WARM_UP })
report(await measure(load))

async function measure(load: Load): Promise<Measured> {
  const handles = load.producers * load.handles
  const tally: Tally = { sum: 0 }
  const { start, done, stop } = deliver(load, handles, tally)
  const cpu = process.cpuUsage()
  const from = performance.now()
  start()
  await done
  const ms = performance.now() - from
  const { user, system } = process.cpuUsage(cpu)
  stop()
  const expected =
    load.chunk > 0 ? load.producers * load.count * load.chunk : expectedSum(handles, load.count / load.handles)
  if (tally.sum !== expected) throw new Error(`listeners were given ${tally.sum} in all, expected ${expected}`)
  const units = load.producers * load.count
  return { ns: (ms * 1e6) / units, cpuNs: ((user + system) * 1e3) / units }
}

interface Delivery {
  start(): void
  /** The last event was dispatched. */
  readonly done: Promise<void>
  stop(): void
}

function events({ producers, handles, count }: Load, all: number, tally: Tally): Delivery {
  const flood = new EventFlood(drain.core, { producers, handles, channels: CHANNELS, count })
  let left = producers * count
  const { promise: done, resolve } = withResolver()
  const targets = Array.from({ length: all }, () => new Target(tally))
  flood.ids.forEach((id, i) => {
    const { scope, events } = targets[i] as Target
    const onRecord = (_kind: number, flags: number, _length: number, low: number, high: number): void => {
      events.emit(KINDS[flags] as (typeof KINDS)[number], low + high * 2 ** 32)
      if (--left === 0) resolve()
    }
    drain.add(id, { generation: generationOf(id), scope, onRecord })
  })
  return held(done, flood)
}

function lanes({ handles, count, chunk }: Load, all: number, tally: Tally): Delivery {
  const bytes = (count / handles) * chunk
  const flood = new LaneFlood(drain.core, {
    lanes: all,
    chunk,
    bytes,
    highWaterMark: HIGH_WATER_MARK,
    patterned: false,
  })
  let left = all
  const { promise: done, resolve } = withResolver()
  flood.ids.forEach((id, lane) => {
    const { scope, events } = new Reader(tally)
    const onRecord = (): void => {
      for (let i = 0; i < CHUNKS_A_TURN; i++) {
        const { chunk, more, ended } = flood.read(lane, LONGEST_CHUNK)
        events.emit('data', chunk)
        if (ended && --left === 0) resolve()
        if (!more) return
      }
      setImmediate(onRecord)
    }
    drain.add(id, { generation: generationOf(id), scope, onRecord })
  })
  return held(done, flood)
}

function held(done: Promise<void>, flood: { start(): void; stop(): void }): Delivery {
  drain.hold()
  return {
    start: () => flood.start(),
    done,
    stop() {
      drain.release()
      flood.stop()
    },
  }
}

function peer({ producers, handles, count, chunk }: Load, all: number, tally: Tally): Delivery {
  let left = producers * count
  const { promise: done, resolve } = withResolver()
  let onCall: (handle: number, ...rest: never[]) => void
  if (chunk > 0) {
    const readers = Array.from({ length: all }, () => new Reader(tally))
    const emit = ({ events }: Reader, bytes: Buffer): void => {
      events.emit('data', bytes)
      if (--left === 0) resolve()
    }
    onCall = (handle, bytes: Buffer) => {
      const reader = readers[handle] as Reader
      reader.scope.runInAsyncScope(emit, undefined, reader, bytes)
    }
  } else {
    const targets = Array.from({ length: all }, () => new Target(tally))
    const emit = ({ events }: Target, kind: number, value: number): void => {
      events.emit(KINDS[kind] as (typeof KINDS)[number], value)
      if (--left === 0) resolve()
    }
    onCall = (handle, kind: number, value: number) => {
      const target = targets[handle] as Target
      target.scope.runInAsyncScope(emit, undefined, target, kind, value)
    }
  }
  const flood = new Peer(onCall, { producers, handles, count, chunk })
  return { start: () => flood.start(), done, stop: () => flood.stop() }
}

function withResolver(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void
  const promise = new Promise<void>((fulfil) => {
    resolve = fulfil
  })
  return { promise, resolve }
}
