// close(): what it refuses, settles, waits for and leaves behind, from wherever it is called.
import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type Images, Runtime, RuntimeClosedError } from '../../../lib/index.js'
import { runModule } from '../../support/child.js'
import { makeFolder } from '../../support/folder.js'
import {
  coreOf,
  door,
  eventFlood,
  listen,
  newGate,
  nextWarning,
  openRuntime,
  rejection,
  runWork,
  settled,
  turn,
  until,
} from '../../support/producer.js'

const threads = () => readdirSync('/proc/self/task').length

/** Every public method that gives a promise; a new one without a case here fails the test below. */
const asyncMethods: Record<string, (runtime: Runtime, path: string) => Promise<unknown>> = {
  'images.create': ({ images }, path) => images.create(`${path}-new`, { format: 'qcow2', size: '1M' }),
  'images.info': ({ images }, path) => images.info(path),
  'images.check': ({ images }, path) => images.check(path),
  'images.rebase': ({ images }, path) => images.rebase(path, { backing: null }),
  'images.commit': (runtime, path) => runtime.images.commit(path),
  'images.resize': (runtime, path) => runtime.images.resize(path, '2M'),
  'images.convert': ({ images }, path) => images.convert(path, `${path}-new`, { format: 'raw' }),
  'images.compare': ({ images }, path) => images.compare(path, path),
  'images.map': ({ images }, path) => images.map(path)[Symbol.asyncIterator]().next(),
  'images.measure': ({ images }, path) => images.measure({ source: path, format: 'qcow2' }),
  'images.open': ({ images }, path) => images.open(path),
  'images.snapshots.list': ({ images }, path) => images.snapshots.list(path),
  'images.snapshots.create': ({ images }, path) => images.snapshots.create(path, 'one'),
  'images.snapshots.apply': ({ images }, path) => images.snapshots.apply(path, 'one'),
  'images.snapshots.remove': ({ images }, path) => images.snapshots.remove(path, 'one'),
  rebase: (runtime, path) => runtime.rebase(path, { backing: null }),
  doctor: (runtime) => runtime.doctor(),
  create: (runtime) => runtime.create(),
  pool: (runtime) => runtime.pool({ size: 2 }),
  get: (runtime) => runtime.get('web'),
  has: (runtime) => runtime.has('web'),
  list: (runtime) => runtime.list(),
  remove: (runtime) => runtime.remove('web'),
}
/** `resize` is of a box alone: it settles as the box's own calls do. */
const notPending = ['constructor', 'close', 'stats', 'ref', 'unref', 'resize']

test('H20: the table of asynchronous methods is complete', () => {
  const names = (object: object) => Object.getOwnPropertyNames(Object.getPrototypeOf(object))
  const runtime = openRuntime()
  const internal = ['rebaseAs', 'closeAll', 'constructor']
  const found = [
    ...names(runtime).filter((name) => !notPending.includes(name)),
    ...names(runtime.images as Images)
      .filter((name) => !internal.includes(name))
      .map((name) => `images.${name}`),
    ...Object.keys(runtime.images.snapshots).map((name) => `images.snapshots.${name}`),
  ]
  expect(found.sort()).toEqual(Object.keys(asyncMethods).sort())
})

test.each(Object.keys(asyncMethods))(
  'H20: close settles a pending %s with its true result or RUNTIME_CLOSED, in every state',
  async (name) => {
    const call = asyncMethods[name] as (typeof asyncMethods)[string]
    const folder = makeFolder()
    // One worker, held at a gate: calls wait for it, for their turn behind it, and for room in the queue.
    const home = folder('home')
    const runtime = openRuntime({ home, workers: 1, queue: { maxEvents: 8 }, concurrency: { images: 4 } })
    await runtime.images.create(folder('image'), { format: 'qcow2', size: '1M' })
    const gate = newGate()
    const held = runWork(runtime, { gate })
    const crowd = new door.Reservation(coreOf(runtime), 5)
    const calls = Array.from({ length: 20 }, () => settled(call(runtime, folder('image'))))
    await turn()
    await settled(runtime.close())
    for (const outcome of await Promise.all(calls)) {
      // Their true result may come in time: they change nothing.
      if (outcome.status === 'fulfilled') expect(['doctor', 'has', 'list']).toContain(name)
      else expect(outcome.reason).toMatchObject({ code: 'RUNTIME_CLOSED', op: name })
    }
    expect(await rejection(held)).toMatchObject({ code: 'RUNTIME_CLOSED', op: 'testing.work', retryable: false })
    expect(runtime.stats().queue.depth).toBe(0)
    crowd.release()
    expect(runtime.stats().handles.live).toBe(0)
  },
)

test.each(Object.keys(asyncMethods))(
  'H27: %s of a closed runtime is RUNTIME_CLOSED and never started',
  async (name) => {
    const runtime = openRuntime()
    const folder = makeFolder()
    await runtime.close()
    const error = await rejection((asyncMethods[name] as (typeof asyncMethods)[string])(runtime, folder('none')))
    expect(error).toBeInstanceOf(RuntimeClosedError)
    expect(error).toMatchObject({ code: 'RUNTIME_CLOSED', op: name, retryable: true })
  },
)

test('H27: resize of a box whose runtime is closed is RUNTIME_CLOSED', async () => {
  const runtime = openRuntime({ home: makeFolder()('home') })
  const box = await runtime.create()
  await runtime.close()
  expect(await rejection(runtime.resize(box, '2G'))).toMatchObject({ code: 'RUNTIME_CLOSED', op: 'resize' })
})

test('H27: a closed runtime still answers its plain getters, and its listeners can still be moved', async () => {
  const runtime = openRuntime({ home: '/tmp/sluicebox-home' })
  await runWork(runtime)
  await runtime.close()
  expect(runtime.home).toBe('/tmp/sluicebox-home')
  expect(runtime.stats()).toMatchObject({
    queue: { depth: 0, dropped: 0, capacity: 4096 },
    handles: { live: 0, claimed: 1, finalized: 1 },
  })
  expect(runtime.ref().unref().ref()).toBe(runtime)
  const listener = () => {}
  expect(runtime.on('close', listener).off('close', listener).listenerCount('close')).toBe(0)
})

test('H21: a thousand operations pending in every place are all settled before close is over, and none after it', async () => {
  const runtime = openRuntime({ workers: 2, queue: { maxEvents: 8 }, concurrency: { images: 100 } })
  const gate = newGate()
  let pending = 1_000
  let heardClose = false
  const settle = () => {
    pending--
    expect(heardClose).toBe(false)
  }
  const works = Array.from({ length: 1_000 }, () => runWork(runtime, { gate }).then(settle, settle))
  runtime.on('close', () => {
    heardClose = true
    expect(pending).toBe(0)
  })
  await until(
    () => door.waitingAtGate() === 2,
    () => runtime.stats(),
  )
  await settled(runtime.close())
  expect({ pending, heardClose }).toEqual({ pending: 0, heardClose: true })
  await Promise.all(works)
  expect(runtime.stats().drain.listenerErrors).toBe(0)
})

test('H21: a batch that a pass cut short is not dispatched after close', async () => {
  const runtime = openRuntime({ queue: { maxEvents: 256 } })
  const flood = eventFlood(runtime, { producers: 1, handles: 4, channels: 64, count: 256 })
  let heard = 0
  listen(runtime, flood.ids, () => {
    const end = performance.now() + 2
    while (performance.now() < end);
    heard++
  })
  flood.start()
  await until(
    () => heard > 0,
    () => runtime.stats(),
  )
  await runtime.close()
  const before = heard
  for (let i = 0; i < 5; i++) await turn()
  expect(before).toBeLessThan(256)
  expect(heard).toBe(before)
})

test('H22: submissions that race close are each refused or settled', async () => {
  for (let turns = 0; turns < 30; turns++) {
    const runtime = openRuntime({ workers: 2, queue: { maxEvents: 8 } })
    const works: Promise<PromiseSettledResult<unknown>>[] = []
    const submit = (count: number) => {
      for (let i = 0; i < count; i++) works.push(settled(runWork(runtime)))
    }
    submit(20)
    for (let i = 0; i < turns; i++) await turn()
    const closed = runtime.close()
    submit(20)
    await closed
    submit(20)
    const outcomes = await Promise.all(works)
    expect(outcomes.slice(20).map(({ status }) => status)).toEqual(Array(40).fill('rejected'))
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'RUNTIME_CLOSED' })
    expect(runtime.stats().handles.live).toBe(0)
  }
})

test('H24: concurrent and repeated closes share one completion, and close is emitted once', async () => {
  const runtime = openRuntime()
  let emitted = 0
  runtime.on('close', () => emitted++)
  const work = runWork(runtime, { gate: newGate() })
  const first = runtime.close()
  expect(runtime.close()).toBe(first)
  expect(runtime[Symbol.asyncDispose]()).toBe(first)
  expect(await rejection(work)).toMatchObject({ code: 'RUNTIME_CLOSED' })
  await first
  expect(await rejection(runtime.close({ timeoutMs: -1 }))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  await runtime.close()
  expect(emitted).toBe(1)
})

test.each(['onProgress', 'an image listener', 'a close listener', 'a finally'])(
  'H25: close() called from %s ends',
  async (place) => {
    const runtime = openRuntime({ workers: 1 })
    const folder = makeFolder()
    let closed: Promise<void> | undefined
    let wentOn = false
    const close = () => {
      closed ??= runtime.close()
      wentOn = true
    }
    if (place === 'a close listener') runtime.on('close', close)
    if (place === 'an image listener') runtime.on('image', close)
    const options = place === 'onProgress' ? { onProgress: close } : {}
    const call = place === 'an image listener' ? runtime.images.info(folder('none')) : runWork(runtime, {}, options)
    await settled(place === 'a finally' ? call.finally(close) : call)
    if (place === 'a close listener') await settled(runtime.close())
    expect(wentOn).toBe(true)
    expect(await settled(closed as Promise<void>)).toMatchObject({ status: 'fulfilled' })
  },
)

test('H26: with a stuck worker close is over within timeoutMs and the join, says so, and the worker ends by itself later', async () => {
  const before = threads()
  const runtime = new Runtime({ workers: 2 })
  const warned = nextWarning(({ name }) => name === 'SluiceboxWarning')
  const gate = newGate()
  const work = runWork(runtime, { gate, stubborn: true })
  await until(
    () => door.waitingAtGate() === 1,
    () => door.waitingAtGate(),
  )
  // The gate is closed as long as close() runs: that it ends at all shows that it does not wait for the worker.
  expect(await settled(runtime.close({ timeoutMs: 50 }))).toMatchObject({ status: 'fulfilled' })
  expect(door.waitingAtGate()).toBe(1)
  expect(await rejection(work)).toMatchObject({ code: 'RUNTIME_CLOSED' })
  expect(await settled(warned)).toMatchObject({ status: 'fulfilled' })
  door.openGate(gate)
  await until(
    () => threads() <= before,
    () => ({ before, now: threads() }),
  )
  expect(runtime.stats().handles).toMatchObject({ live: 0 })
})

test('H26: with nothing in flight close waits for nothing', async () => {
  const runtime = openRuntime()
  const before = threads()
  await runtime.close({ timeoutMs: 0 })
  expect(threads()).toBeLessThan(before)
})

test('H28: disposing twice and collection after it do no harm', async () => {
  const ended = await runModule(
    `
    import { setFlagsFromString } from 'node:v8'
    import { runInNewContext } from 'node:vm'
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc')
    for (let i = 0; i < 20; i++) {
      const runtime = new Runtime({ workers: 2 })
      await runWork(runtime)
      await runtime[Symbol.asyncDispose]()
      await runtime[Symbol.asyncDispose]()
    }
    for (let i = 0; i < 5; i++) { gc(); await new Promise((resolve) => setImmediate(resolve)) }
    console.log('collected')
  `,
  )
  expect(ended).toMatchObject({ signal: null, code: 0, stdout: 'collected\n', stderr: '' })
})

test('H28: collecting a runtime that nobody holds stops nothing under way', async () => {
  const ended = await runModule(`
    import { setFlagsFromString } from 'node:v8'
    import { runInNewContext } from 'node:vm'
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc')
    const begin = () => runWork(new Runtime({ workers: 1 }), { gate: 1 })
    const work = begin()
    for (let i = 0; i < 5; i++) { gc(); await new Promise((resolve) => setImmediate(resolve)) }
    door.openGate(1)
    console.log(await work)
  `)
  expect(ended).toMatchObject({ signal: null, code: 0, stdout: '42\n', stderr: '' })
})

test('H28, Q25: a closed runtime is collected with its queue, and the environment ends without it', async () => {
  const ended = await runModule(`
    import { setFlagsFromString } from 'node:v8'
    import { runInNewContext } from 'node:vm'
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc')
    const make = async () => {
      const runtime = new Runtime({ workers: 1 })
      await runWork(runtime)
      await runtime.close()
      return [new WeakRef(runtime), new WeakRef(coreOf(runtime))]
    }
    const refs = []
    for (let i = 0; i < 20; i++) refs.push(...(await make()))
    // Whatever deref() gave stays until the job's end: nothing is looked at before the last collection.
    for (let i = 0; i < 10; i++) { gc(); await new Promise((resolve) => setImmediate(resolve)) }
    console.log(refs.filter((ref) => ref.deref() !== undefined).length)
    for (let i = 0; i < 20; i++) await make()
  `)
  expect(ended).toMatchObject({ signal: null, code: 0, stdout: '0\n', stderr: '' })
})

test('H26, H28: a stuck worker stops the event loop neither in close() nor in the collection that follows', async () => {
  const module = `
    import { setFlagsFromString } from 'node:v8'
    import { runInNewContext } from 'node:vm'
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc')
    process.on('warning', () => {})
    let [last, longest] = [performance.now(), 0]
    const look = () => {
      const now = performance.now()
      longest = Math.max(longest, now - last)
      last = now
    }
    setInterval(look, 5).unref()
    let collected = false
    const registry = new FinalizationRegistry(() => { collected = true })
    const closeOne = async () => {
      const runtime = new Runtime({ workers: 1 })
      registry.register(coreOf(runtime))
      runWork(runtime, { gate: 1, stubborn: true }).catch(() => {})
      while (door.waitingAtGate() === 0) await new Promise((resolve) => setImmediate(resolve))
      await runtime.close({ timeoutMs: 10 })
    }
    await closeOne()
    for (let i = 0; i < 200 && !collected; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 5)) }
    look()
    console.log(collected, longest < 500 ? 'turning' : 'stopped for ' + longest)
    process.exit()
  `
  let ended = await runModule(module)
  // A busy host may stop it as well, but not time after time.
  for (let round = 1; round < 5 && ended.stdout !== 'true turning\n'; round++) ended = await runModule(module)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'true turning\n' })
})
