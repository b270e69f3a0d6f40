// User code inside the drain: what it may call, what its throws do, which async context it sees.
import { AsyncLocalStorage } from 'node:async_hooks'
import { expect, test } from 'vitest'
import { runModule } from '../../support/child.js'
import { makeFolder } from '../../support/folder.js'
import {
  blockUntil,
  coreOf,
  door,
  eventFlood,
  listen,
  newGate,
  openRuntime,
  rejection,
  runWork,
  settled,
  turn,
  until,
} from '../../support/producer.js'

test('Q5, H25: inside a listener stats(), a submission and close() return, and the producers post on while it blocks', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 128 } })
  const flood = eventFlood(runtime, { producers: 2, handles: 1, channels: 32, count: 0 })
  const inside: { work?: Promise<unknown>; close?: Promise<void> } = {}
  let returned = false
  listen(runtime, flood.ids, () => {
    if (inside.work) return
    inside.work = runWork(runtime)
    const before = flood.posted()
    // A batch was taken just now: its slots are free, and this thread is busy.
    blockUntil(
      () => flood.posted() > before || coreOf(runtime).depth() >= 64,
      () => runtime.stats(),
    )
    expect(runtime.stats().queue.depth).toBeGreaterThan(0)
    inside.close = runtime.close()
    returned = true
  })
  flood.start()
  await until(
    () => inside.close !== undefined,
    () => runtime.stats(),
  )
  expect(returned).toBe(true)
  expect(await settled(inside.close as Promise<void>)).toMatchObject({ status: 'fulfilled' })
  expect((await settled(inside.work as Promise<unknown>)).status).toMatch(/fulfilled|rejected/)
})

test('Q9: a listener that throws stops no other one and no later event, is counted, and is told with target and name', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const bang = new Error('bang')
  const [told, second]: [unknown[], string[]] = [[], []]
  runtime.on('listenerError', (error, event) => told.push([error, event]))
  runtime.on('image', () => {
    throw bang
  })
  runtime.on('image', ({ type }) => second.push(type))
  await expect(runtime.images.info(folder('none'))).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  await turn()
  expect(second).toEqual(['started', 'failed'])
  expect(told).toEqual([
    [bang, { target: 'runtime', name: 'image' }],
    [bang, { target: 'runtime', name: 'image' }],
  ])
  expect(runtime.stats().drain.listenerErrors).toBe(2)
})

test('Q9: an onProgress that throws is told as one of its call, and the call goes on', async () => {
  const runtime = openRuntime()
  const told: unknown[] = []
  runtime.on('listenerError', (error, event) => told.push([error, event]))
  const onProgress = () => {
    throw 'no error at all'
  }
  expect(await runWork(runtime, {}, { onProgress })).toBe(42)
  expect(told.length).toBeGreaterThanOrEqual(1)
  expect(told[0]).toEqual(['no error at all', { target: 'testing.work', name: 'onProgress' }])
})

test.each([
  ['nobody listens to listenerError', ''],
  ['its listener throws too', `runtime.on('listenerError', () => { throw new Error('bang') })`],
])('Q9: the throw is an uncaught exception when %s', async (_when, listener) => {
  const ended = await runModule(`
    const runtime = new Runtime()
    ${listener}
    process.on('uncaughtException', (error) => console.log('uncaught', error.message))
    const onProgress = () => { throw new Error('bang') }
    console.log(await runWork(runtime, {}, { onProgress }), runtime.stats().drain.listenerErrors > 0)
    await runtime.close()
  `)
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  expect(ended.stdout).toMatch(/^(uncaught bang\n)+42 true\n$|^42 true\n(uncaught bang\n)+$/)
})

test('Q10: what completes while a listener runs is dispatched after it returned', async () => {
  const runtime = openRuntime({ workers: 2 })
  const gate = newGate()
  let depth = 0
  const order: string[] = []
  const enter = (name: string, run: () => void) => {
    expect(++depth, `${name} began inside another listener`).toBe(1)
    const before = order.length
    run()
    expect(order.length, `dispatched while ${name} ran`).toBe(before)
    depth--
    order.push(name)
  }
  let second: Promise<unknown> | undefined
  const first = runWork(
    runtime,
    { gate },
    {
      onProgress: ({ done }) =>
        enter(`first ${done}`, () => {
          second ??= runWork(runtime, {}, { onProgress: () => enter('second', () => {}) })
          door.openGate(gate)
          // Its own next report and completion come up behind it.
          blockUntil(
            () => door.waitingAtGate() === 0,
            () => runtime.stats(),
          )
          blockUntil(
            () => coreOf(runtime).depth() > 0 || done === 2,
            () => runtime.stats(),
          )
        }),
    },
  )
  await first
  await second
  expect(order[0]).toBe('first 1')
  expect(order).toContain('second')
})

test('Q26: a callback and a settlement see the context of the call that made them, while one pass serves a hundred', async () => {
  const runtime = openRuntime({ workers: 2, concurrency: { images: 100 } })
  const storage = new AsyncLocalStorage<number>()
  const gate = newGate()
  const seen: [string, number, number | undefined][] = []
  const works = Array.from({ length: 100 }, (_, index) =>
    storage.run(index, () =>
      runWork(runtime, { gate }, { onProgress: () => seen.push(['progress', index, storage.getStore()]) }).then(() =>
        seen.push(['settled', index, storage.getStore()]),
      ),
    ),
  )
  await until(
    () => runtime.stats().handles.live === 100 && door.waitingAtGate() === 2,
    () => runtime.stats(),
  )
  storage.run(-1, () => door.openGate(gate))
  blockUntil(
    () => coreOf(runtime).depth() >= 200 - 4,
    () => runtime.stats().queue,
  )
  await storage.run(-2, () => Promise.all(works))
  expect(seen.length).toBeGreaterThanOrEqual(200)
  expect(seen.filter(([, index, store]) => store !== index)).toEqual([])
})

test('Q26: an image event is heard in the context of its call, also when the call waited its turn', async () => {
  const runtime = openRuntime({ workers: 1, concurrency: { images: 1 } })
  const folder = makeFolder()
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  runtime.on('image', ({ type, path }) => seen.push([type, path, storage.getStore()]))
  const names = ['a', 'b', 'c'].map((name) => folder(name))
  await Promise.allSettled(names.map((name) => storage.run(name, () => runtime.images.info(name))))
  expect(seen.length).toBe(6)
  for (const event of seen) expect((event as unknown[])[2]).toBe((event as unknown[])[1])
})

test('Q21: closing one runtime, or blocking its listeners, leaves the events of another alone', async () => {
  const [closing, blocked, free] = [openRuntime(), openRuntime(), openRuntime()]
  const counts = [0, 0, 0]
  const floods = [closing, blocked, free].map((runtime, index) => {
    const flood = eventFlood(runtime, { producers: 1, handles: 1, channels: 32, count: 0 })
    listen(runtime, flood.ids, () => {
      counts[index] = (counts[index] ?? 0) + 1
    })
    return flood
  })
  for (const flood of floods) flood.start()
  await until(
    () => counts.every((count) => count > 100),
    () => counts,
  )
  await closing.close()
  floods[0]?.stop()
  const [closedAt, freeAt] = [counts[0], counts[2] ?? 0]
  await until(
    () => (counts[2] ?? 0) > freeAt + 1000,
    () => counts,
  )
  expect(counts[0]).toBe(closedAt)
  expect(await runWork(free)).toBe(42)
  expect(await runWork(blocked)).toBe(42)
  expect(free.stats().queue.dropped).toBe(0)
})

test('Q26: image events tell of calls that the queue let in, each by a start and one end, with whatever it rejected with', async () => {
  const runtime = openRuntime({ workers: 1, queue: { maxEvents: 8 }, concurrency: { images: 4 } })
  const folder = makeFolder()
  const seen: [string, string, unknown][] = []
  runtime.on('image', ({ type, path, error }) => seen.push([type, path.slice(folder().length + 1), error]))
  await rejection(runtime.images.info(folder('aborted'), { signal: AbortSignal.abort('mine') }))
  const crowd = new door.Reservation(coreOf(runtime), 8)
  const controller = new AbortController()
  const waiting = [
    runtime.images.info(folder('waiting'), { signal: controller.signal }),
    runtime.images.info(folder('next')),
  ]
  for (let i = 0; i < 5; i++) await turn()
  expect(seen).toEqual([])
  controller.abort('gave up')
  expect(await rejection(waiting[0] as Promise<unknown>)).toBe('gave up')
  crowd.release()
  const missing = await rejection(waiting[1] as Promise<unknown>)
  const gate = newGate()
  const held = runWork(runtime, { gate })
  const later = new AbortController()
  const queued = runtime.images.info(folder('queued'), { signal: later.signal })
  await until(
    () => seen.length === 3,
    () => seen,
  )
  later.abort('no error at all')
  door.openGate(gate)
  await held
  expect(await rejection(queued)).toBe('no error at all')
  await turn()
  expect(seen).toEqual([
    ['started', 'next', undefined],
    ['failed', 'next', missing],
    ['started', 'queued', undefined],
    ['failed', 'queued', 'no error at all'],
  ])
})
