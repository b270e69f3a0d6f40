// The drain under producers that never rest: what is counted, what is kept, what comes in which order and on which thread.
import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { runModule } from '../../support/child.js'
import {
  blockUntil,
  coreOf,
  door,
  drainOf,
  eventFlood,
  listen,
  newGate,
  openRuntime,
  runWork,
  settled,
  turn,
  until,
} from '../../support/producer.js'

test('Q1: with the JS thread blocked the queue fills to maxEvents and no further, whatever the producers do', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 64 } })
  const flood = eventFlood(runtime, { producers: 4, handles: 2, channels: 8, count: 0 })
  let heard = 0
  listen(runtime, flood.ids, () => heard++)
  expect(() => new door.Reservation(coreOf(runtime), 1)).toThrow(/64 of 64 events/)
  flood.start()
  let deepest = 0
  const full = (): boolean => {
    deepest = Math.max(deepest, coreOf(runtime).depth())
    return deepest >= 64
  }
  blockUntil(full, () => runtime.stats().queue)
  for (let i = 0; i < 100_000; i++) full()
  expect(deepest).toBe(64)
  expect(heard).toBe(0)
  await until(
    () => heard > 10_000,
    () => runtime.stats(),
  )
  flood.stop()
  expect(runtime.stats().queue).toMatchObject({ highWater: 64, capacity: 64, dropped: 0 })
})

test('Q3, Q11: a million numbered events of eight handles arrive once each, in order', async () => {
  const runtime = openRuntime({ workers: 4 })
  const flood = eventFlood(runtime, { producers: 4, handles: 2, channels: 16, count: 250_000 })
  const next = new Map(flood.ids.map((id) => [id, 0]))
  let heard = 0
  const wrong: unknown[] = []
  listen(runtime, flood.ids, ({ id, number, flags }) => {
    const expected = next.get(id)
    if (number !== expected || flags !== number % 4) wrong.push({ id, number, expected, flags })
    next.set(id, number + 1)
    heard++
  })
  flood.start()
  await until(
    () => heard >= 1_000_000,
    () => ({ heard, posted: flood.posted(), ...runtime.stats() }),
  )
  // Nothing is behind them.
  await until(
    () => coreOf(runtime).take() === 0,
    () => runtime.stats(),
  )
  expect(wrong.slice(0, 3)).toEqual([])
  expect([...next.values()]).toEqual(flood.ids.map(() => 125_000))
  expect(heard).toBe(flood.posted())
  expect(runtime.stats().queue.dropped).toBe(0)
  expect(runtime.stats().drain.events).toBe(1_000_000)
})

test('Q4: with four producers and four workers every callback runs on this thread, and none of theirs is it', async () => {
  const runtime = openRuntime({ workers: 4 })
  const flood = eventFlood(runtime, { producers: 4, handles: 1, channels: 8, count: 5_000 })
  const seen = new Set<number>()
  let heard = 0
  listen(runtime, flood.ids, () => {
    seen.add(door.threadId())
    heard++
  })
  flood.start()
  const here = () => void seen.add(door.threadId())
  await Promise.all(Array.from({ length: 50 }, () => runWork(runtime, {}, { onProgress: here }).then(here)))
  await until(
    () => heard === 20_000,
    () => ({ heard, posted: flood.posted() }),
  )
  expect([...seen]).toEqual([door.threadId()])
  expect(new Set(flood.threadIds()).size).toBe(4)
  expect(flood.threadIds()).not.toContain(door.threadId())
})

test('Q6: ten thousand posts before the loop turns make one wake-up', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 16_384 } })
  const flood = eventFlood(runtime, { producers: 1, handles: 160, channels: 64, count: 10_000 })
  let heard = 0
  listen(runtime, flood.ids, () => heard++)
  flood.start()
  blockUntil(
    () => flood.posted() === 10_000,
    () => ({ posted: flood.posted(), ...runtime.stats().queue }),
  )
  expect(runtime.stats().queue).toMatchObject({ wakeups: 1, depth: 10_000 })
  await until(
    () => heard === 10_000,
    () => ({ heard, ...runtime.stats() }),
  )
  expect(runtime.stats().queue.wakeups).toBe(1)
})

test('Q7: each of 5,000 completions posted to a drain about to sleep wakes a loop that nothing else wakes', async () => {
  const ended = await runModule(`
    const runtime = new Runtime({ workers: 2 })
    let count = 0
    for (; count < 5000; count++) await runWork(runtime)
    console.log(count)
    await runtime.close()
  `)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: '5000\n', stderr: '' })
})

test('Q7: events that nobody’s promise waits for arrive while the loop sleeps on a timer of the program’s own', async () => {
  const ended = await runModule(`
    import { AsyncResource } from 'node:async_hooks'
    const runtime = new Runtime()
    const { drain } = internals.get(runtime)
    const flood = new door.EventFlood(drain.core, { producers: 2, handles: 1, channels: 4, count: 1000 })
    let heard = 0
    const onRecord = () => {
      // Longer than a pass may take: the next event is for a later turn.
      const end = performance.now() + 1.5
      while (performance.now() < end);
      if (++heard === 2000) process.exit(3)
    }
    const scope = new AsyncResource('test')
    for (const id of flood.ids) drain.add(id, { generation: Math.floor(id / 2 ** 21), scope, onRecord })
    // Which keeps the flood from being collected, too.
    setTimeout(() => flood.stop(), 2 ** 30)
    flood.start()
  `)
  expect(ended).toMatchObject({ code: 3, signal: null, stderr: '' })
})

test('Q7, Q15: submissions that wait for the one free slot are all let in, though slots come back after the last word', async () => {
  const ended = await runModule(`
    const runtime = new Runtime({ workers: 2, queue: { maxEvents: 8 }, concurrency: { images: 64 } })
    const crowd = new door.Reservation(coreOf(runtime), 7)
    const results = await Promise.all(Array.from({ length: 5000 }, () => runWork(runtime)))
    console.log(results.length)
    crowd.release()
    await runtime.close()
  `)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: '5000\n', stderr: '' })
})

test('Q8: under an endless flood timers and I/O have their turn between passes', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 512 } })
  const flood = eventFlood(runtime, { producers: 2, handles: 4, channels: 64, count: 0 })
  let heard = 0
  listen(runtime, flood.ids, () => heard++)
  flood.start()
  await until(
    () => heard > 1_000,
    () => runtime.stats(),
  )
  const before = runtime.stats().drain.events
  for (let timer = 0; timer < 20; timer++) await new Promise((resolve) => setTimeout(resolve, 5))
  expect(runtime.stats().drain.events, 'the flood went on meanwhile').toBeGreaterThan(before)
  expect((await readFile(new URL(import.meta.url))).length).toBeGreaterThan(0)
  const { passes, events } = runtime.stats().drain
  expect(events).toBeGreaterThanOrEqual(passes)
})

test('Q8: slow listeners cut a pass short, so that the loop turns after a handful of events', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 256 } })
  const flood = eventFlood(runtime, { producers: 1, handles: 4, channels: 64, count: 256 })
  let inThisTurn = 0
  const perTurn: number[] = []
  let heard = 0
  listen(runtime, flood.ids, () => {
    const end = performance.now() + 0.5
    while (performance.now() < end);
    inThisTurn++
    heard++
  })
  flood.start()
  blockUntil(
    () => flood.posted() === 256,
    () => flood.posted(),
  )
  while (heard < 256) {
    await turn()
    perTurn.push(inThisTurn)
    inThisTurn = 0
  }
  // The clock is read at the 16th event, and at every one after it; two passes may share a turn of the loop.
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(32)
  expect(perTurn.filter((count) => count > 0).length).toBeGreaterThan(8)
})

test('Q11: the progress of each of 200 operations on 8 workers comes before its settlement, in its order', async () => {
  const runtime = openRuntime({ workers: 8 })
  const orders = await Promise.all(
    Array.from({ length: 200 }, async () => {
      const order: (number | string)[] = []
      await runWork(runtime, {}, { onProgress: ({ done }) => order.push(done) })
      order.push('settled')
      await turn()
      return order
    }),
  )
  const allowed = [
    [1, 2, 'settled'],
    [2, 'settled'],
  ]
  for (const order of orders) expect(allowed).toContainEqual(order)
})

test('Q16: a loop blocked for a second loses and reorders nothing, and calls nothing late', async () => {
  const runtime = openRuntime({ workers: 2 })
  const flood = eventFlood(runtime, { producers: 2, handles: 2, channels: 64, count: 100_000 })
  const next = new Map(flood.ids.map((id) => [id, 0]))
  let heard = 0
  let wrong = 0
  listen(runtime, flood.ids, ({ id, number }) => {
    if (number !== next.get(id)) wrong++
    next.set(id, number + 1)
    heard++
  })
  const gate = newGate()
  const works = [runWork(runtime, { gate }), runWork(runtime, { gate })]
  flood.start()
  await until(
    () => heard > 1_000 && door.waitingAtGate() === 2,
    () => ({ heard, waiting: door.waitingAtGate() }),
  )
  door.openGate(gate)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000)
  await until(
    () => heard === 200_000,
    () => ({ heard, posted: flood.posted(), ...runtime.stats() }),
  )
  expect(wrong).toBe(0)
  expect(await settled(Promise.all(works))).toEqual({ status: 'fulfilled', value: [42, 42] })
  expect(drainOf(runtime).stats.events).toBeGreaterThanOrEqual(200_000)
})

test('Q17: reports that nobody could read are one event, the newest, and none follows the settlement', async () => {
  const runtime = openRuntime({ workers: 1 })
  const gate = newGate()
  const seen: unknown[] = []
  const work = runWork(runtime, { gate }, { onProgress: ({ phase, done }) => seen.push([phase, done]) })
  blockUntil(
    () => door.waitingAtGate() === 1,
    () => door.waitingAtGate(),
  )
  door.openGate(gate)
  // Both reports and the completion are behind us: the progress is one record.
  const settledFirst = runWork(runtime)
  blockUntil(
    () => coreOf(runtime).depth() >= 2 && door.waitingAtGate() === 0,
    () => runtime.stats().queue,
  )
  await work
  seen.push('settled')
  await settledFirst
  await turn()
  expect(seen).toEqual([['end', 2], 'settled'])
})

test('Q8: a 5 ms timer has its turn after few events of slow listeners, pass after pass', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 512 } })
  const flood = eventFlood(runtime, { producers: 1, handles: 4, channels: 64, count: 0 })
  let heard = 0
  listen(runtime, flood.ids, () => {
    const end = performance.now() + 5
    while (performance.now() < end);
    heard++
  })
  flood.start()
  await until(
    () => heard > 0,
    () => runtime.stats(),
  )
  const between: number[] = []
  for (let timer = 0; timer < 10; timer++) {
    const before = heard
    await new Promise((resolve) => setTimeout(resolve, 5))
    between.push(heard - before)
  }
  // One event a pass; the loop may run a pass before it looks at its timers.
  expect(Math.max(...between), String(between)).toBeLessThanOrEqual(4)
})
