// Slots and bytes: what holds when a queue is crowded, when nobody reads, and when there is pressure.
import { expect, test } from 'vitest'
import {
  blockUntil,
  coreOf,
  door,
  drainOf,
  eventFlood,
  type LaneFlood,
  laneFlood,
  listen,
  newGate,
  openRuntime,
  runWork,
  settled,
  turn,
  until,
} from '../../support/producer.js'

const KIB = 1024

/** Reads a stream as far as it goes, and says where byte k is not k mod 251. */
class Reader {
  bytes = 0
  ended = false
  wrongAt: number | undefined
  constructor(
    readonly flood: LaneFlood,
    readonly index: number,
  ) {}

  read(): void {
    for (let more = true; more; ) {
      const got = this.flood.read(this.index)
      for (const byte of got.chunk) {
        if (byte !== this.bytes % 251) this.wrongAt ??= this.bytes
        this.bytes++
      }
      this.ended ||= got.ended
      more = got.more
    }
  }
}

test('Q2, Q18: a full lane nobody reads stops its own stream alone, and goes on by itself once it is read', async () => {
  const runtime = openRuntime()
  const bytes = 3 * 2 ** 20 + 17
  const mark = 64 * KIB
  const flood = laneFlood(runtime, { lanes: 3, chunk: 999, bytes, highWaterMark: mark, patterned: true })
  const readers = flood.ids.map((_, index) => new Reader(flood, index))
  let lastIsRead = false
  let readable = 0
  listen(runtime, flood.ids, ({ id }) => {
    const index = flood.ids.indexOf(id)
    if (index === 2) readable++
    if (index !== 2 || lastIsRead) readers[index]?.read()
  })
  flood.start()
  const state = () => ({ readers, held: flood.held(), ...runtime.stats() })
  await until(() => readers[0]?.ended === true && readers[1]?.ended === true, state)
  expect(readers[2]?.bytes).toBe(0)
  expect(flood.held()).toBe(mark)
  expect(runtime.stats().lanes.bytes).toBe(mark)
  expect(readable, 'one record says that it is readable').toBe(1)
  lastIsRead = true
  readers[2]?.read()
  await until(() => readers[2]?.ended === true, state)
  expect(readers.map(({ bytes, wrongAt }) => [bytes, wrongAt])).toEqual(readers.map(() => [bytes, undefined]))
  expect(flood.held()).toBe(0)
})

test('Q2: lanes hold their bytes from the moment they are made, and a submission past maxBytes is refused', () => {
  const runtime = openRuntime({ queue: { maxBytes: 256 * KIB } })
  const lanes = (count: number, highWaterMark: number) =>
    laneFlood(runtime, { lanes: count, chunk: 1024, bytes: 0, highWaterMark, patterned: false })
  lanes(3, 64 * KIB)
  expect(() => lanes(1, 64 * KIB + 1)).toThrow(/196608 of 262144 bytes are reserved/)
  expect(() => lanes(1, 300 * KIB)).toThrow(/never fits/)
  lanes(1, 64 * KIB)
  expect(runtime.stats().queue.bytes).toBe(0)
})

test('Q12: a completion behind four flooded lanes is dispatched after one record of each at most', async () => {
  const runtime = openRuntime({ workers: 1 })
  const gate = newGate()
  const flood = laneFlood(runtime, { lanes: 4, chunk: 4096, bytes: 2 ** 40, highWaterMark: 64 * KIB, patterned: false })
  let between = 0
  let posted = false
  let passes = 0
  listen(runtime, flood.ids, ({ id }) => {
    if (posted) between++
    if (!posted && drainOf(runtime).stats.events > 100 && door.waitingAtGate() === 1) {
      // Full lanes post no more, so that the next record is the completion's.
      blockUntil(
        () => flood.held() === 4 * 64 * KIB,
        () => flood.held(),
      )
      const depth = coreOf(runtime).depth()
      door.openGate(gate)
      blockUntil(
        () => coreOf(runtime).depth() === depth + 1,
        () => runtime.stats().queue,
      )
      posted = true
      passes = runtime.stats().drain.passes
    }
    flood.read(flood.ids.indexOf(id))
  })
  const work = runWork(runtime, { gate })
  flood.start()
  await work
  expect(posted).toBe(true)
  // Those of the batch in hand, and those that stood before it in the queue.
  expect(between).toBeLessThanOrEqual(2 * 4)
  // A pass that ran out of its time may have dispatched one alone.
  expect(runtime.stats().drain.passes - passes).toBeLessThanOrEqual(2 * 4 + 1)
})

test.each([1, 2])(
  'Q13: with capacity 8 and all but %i slots taken, each operation reports progress if it can and settles',
  async (free) => {
    const runtime = openRuntime({ workers: 4, queue: { maxEvents: 8 }, concurrency: { images: 16 } })
    const crowd = new door.Reservation(coreOf(runtime), 8 - free)
    let reports = 0
    const options = free === 2 ? { onProgress: () => void reports++ } : {}
    const results = await Promise.all(Array.from({ length: 100 }, () => runWork(runtime, {}, options)))
    expect(results).toEqual(results.map(() => 42))
    if (free === 2) expect(reports).toBeGreaterThanOrEqual(100)
    crowd.release()
    expect(runtime.stats().queue).toMatchObject({ dropped: 0, depth: 0 })
    expect(runtime.stats().queue.highWater).toBeLessThanOrEqual(8)
  },
)

test('Q14: a worker that posts to a queue nobody drains goes straight on to its next work', async () => {
  const runtime = openRuntime({ workers: 1, queue: { maxEvents: 8 }, concurrency: { images: 8 } })
  const flood = eventFlood(runtime, { producers: 6, handles: 1, channels: 1, count: 0 })
  const [first, second] = [newGate(), newGate()]
  const works = [runWork(runtime, { gate: first }), runWork(runtime, { gate: second })]
  // Both must be submitted before this thread stops turning.
  await until(
    () => runtime.stats().handles.live === 8 && door.waitingAtGate() === 1,
    () => runtime.stats(),
  )
  flood.start()
  blockUntil(
    () => coreOf(runtime).depth() === 6,
    () => runtime.stats().queue,
  )
  door.openGate(first)
  blockUntil(
    () => coreOf(runtime).depth() === 7 && door.waitingAtGate() === 1,
    () => runtime.stats().queue,
  )
  door.openGate(second)
  blockUntil(
    () => coreOf(runtime).depth() === 8,
    () => runtime.stats().queue,
  )
  flood.stop()
  expect(await settled(Promise.all(works))).toEqual({ status: 'fulfilled', value: [42, 42] })
})

test('Q15: submissions past capacity are pending promises at once, which start in their order when there is room', async () => {
  const runtime = openRuntime({ workers: 1, queue: { maxEvents: 8 }, concurrency: { images: 64 } })
  const crowd = new door.Reservation(coreOf(runtime), 8)
  const order: number[] = []
  const works = Array.from({ length: 30 }, (_, index) => runWork(runtime).then(() => order.push(index)))
  for (let i = 0; i < 20; i++) await turn()
  expect(order).toEqual([])
  expect(runtime.stats().handles.live, 'the reservation alone').toBe(1)
  crowd.release()
  await Promise.all(works)
  expect(order).toEqual(works.map((_, index) => index))
  expect(runtime.stats().queue.blockedMs).toBeGreaterThan(0)
})

test('Q15, H32: a submission waiting for room is given up at once when its signal aborts, and those behind it are not held up', async () => {
  const runtime = openRuntime({ workers: 1, queue: { maxEvents: 8 }, concurrency: { images: 64 } })
  const crowd = new door.Reservation(coreOf(runtime), 8)
  const controller = new AbortController()
  const first = runWork(runtime, {}, { signal: controller.signal })
  const second = runWork(runtime)
  await turn()
  controller.abort('enough')
  expect(await settled(first)).toEqual({ status: 'rejected', reason: 'enough' })
  crowd.release()
  expect(await settled(second)).toEqual({ status: 'fulfilled', value: 42 })
})

test.each([8, 64, 1024])(
  'Q20: with capacity %i pressure goes high and normal in turn, and ends normal',
  async (maxEvents) => {
    const runtime = openRuntime({ queue: { maxEvents } })
    const states: string[] = []
    runtime.on('pressure', ({ state, depth, capacity }) => {
      states.push(state)
      expect(capacity).toBe(maxEvents)
      if (state === 'high') expect(depth).toBeGreaterThanOrEqual(capacity * 0.75)
      else expect(depth).toBeLessThanOrEqual(capacity / 2)
    })
    for (let round = 1; round <= 3; round++) {
      const channels = Math.min(64, maxEvents)
      const flood = eventFlood(runtime, { producers: 1, handles: maxEvents / channels, channels, count: maxEvents })
      let heard = 0
      listen(runtime, flood.ids, () => heard++)
      flood.start()
      blockUntil(
        () => coreOf(runtime).depth() === maxEvents,
        () => runtime.stats().queue,
      )
      await until(
        () => heard === maxEvents && states.length >= round * 2,
        () => ({ states, ...runtime.stats() }),
      )
      flood.stop()
      for (const id of flood.ids) coreOf(runtime).claim(id)
    }
    expect(states).toEqual(['high', 'normal', 'high', 'normal', 'high', 'normal'])
  },
)

test('Q20: a queue that hovers between its marks says nothing', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 100 } })
  const states: string[] = []
  runtime.on('pressure', ({ state }) => states.push(state))
  const flood = eventFlood(runtime, { producers: 1, handles: 1, channels: 60, count: 60 })
  let heard = 0
  listen(runtime, flood.ids, () => heard++)
  flood.start()
  blockUntil(
    () => coreOf(runtime).depth() === 60,
    () => runtime.stats().queue,
  )
  await until(
    () => heard === 60,
    () => runtime.stats(),
  )
  await turn()
  expect(states).toEqual([])
})
