// How a process, or a worker thread, with runtimes in it ends: in bounded time, with the exit code meant, and without a crash.
import { expect, test } from 'vitest'
import { runModule, runNode } from '../support/child.js'

const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? Date.now() % 1_000_000)

/** In a child: a runtime with an endless flood, lanes that nobody reads, work at a gate, and work in line. */
const busy = `
const makeBusy = (Runtime, stubborn) => {
  const runtime = new Runtime({ workers: 2, queue: { maxEvents: 256 } })
  const core = coreOf(runtime)
  const floods = [new door.EventFlood(core, { producers: 2, handles: 1, channels: 32, count: 0 }),
    new door.LaneFlood(core, { lanes: 2, chunk: 4096, bytes: 2 ** 40, highWaterMark: 65536, patterned: false })]
  for (const flood of floods) flood.start()
  const works = Array.from({ length: 5 }, () => runWork(runtime, { gate: 1000, stubborn }).catch((error) => error))
  return { runtime, floods, works }
}
`

const idleEnds = [
  ['itself', '', 0],
  ['process.exit(7)', 'process.exit(7)', 7],
  ['process.exitCode', 'process.exitCode = 5', 5],
  ['an uncaught exception', "throw new Error('meant')", 1],
  ['an unhandled rejection', "Promise.reject(new Error('meant'))", 1],
] as const
test.each(idleEnds)(
  'Q23: with an idle runtime left open, the end by %s keeps its exit code',
  async (_how, code, exit) => {
    const ended = await runModule(`
    const runtime = new Runtime({ workers: 4 })
    await runWork(runtime)
    console.log('worked')
    setImmediate(async () => { ${code} })
  `)
    expect(ended).toMatchObject({ code: exit, signal: null, stdout: 'worked\n' })
    if (exit === 1) expect(ended.stderr).toContain('meant')
    else expect(ended.stderr).toBe('')
  },
)

const busyEnds = [
  ['process.exit(7)', 'process.exit(7)', 7, false],
  ['process.exit(7) with a stuck worker', 'process.exit(7)', 7, true],
  ['an uncaught exception', "throw new Error('meant')", 1, false],
] as const
test.each(busyEnds)(
  'Q23: under floods and running work, %s ends the process, and no JS runs after it',
  async (_how, code, exit, stubborn) => {
    const ended = await runModule(`
    ${busy}
    const { works, floods } = makeBusy(Runtime, ${stubborn})
    let exited = false
    process.on('exit', () => { exited = true })
    for (const work of works) work.then(() => { if (exited) console.log('JS after exit') })
    const timer = setInterval(() => {
      if (door.waitingAtGate() !== 2 || floods[0].posted() < 300) return
      console.log('busy')
      clearInterval(timer)
      ${code}
    }, 1)
  `)
    expect(ended).toMatchObject({ code: exit, signal: null, stdout: 'busy\n' })
  },
)

test('Q24: an idle runtime lets the process end; a pending promise and ref() hold it, unref() and close() let it go', async () => {
  const idle = await runModule(`new Runtime({ workers: 4 })`)
  expect(idle).toMatchObject({ code: 0, signal: null })
  const pending = await runModule(`
    const runtime = new Runtime({ workers: 1 })
    runWork(runtime, { gate: 1 }).then((value) => console.log('settled', value))
    const opener = setTimeout(() => door.openGate(1), 300).unref()
  `)
  expect(pending).toMatchObject({ code: 0, signal: null, stdout: 'settled 42\n' })
  const referenced = await runModule(`
    const runtime = new Runtime().ref().ref()
    setTimeout(() => { console.log('held'); runtime.unref() }, 300).unref()
  `)
  expect(referenced).toMatchObject({ code: 0, signal: null, stdout: 'held\n' })
  const closed = await runModule(`
    const runtime = new Runtime().ref()
    setTimeout(() => runtime.close().then(() => console.log('closed')), 300).unref()
  `)
  expect(closed).toMatchObject({ code: 0, signal: null, stdout: 'closed\n' })
  const unreferenced = await runModule(`
    const runtime = new Runtime().ref().unref().unref()
    setTimeout(() => console.log('still here'), 30_000).unref()
  `)
  expect(unreferenced).toMatchObject({ code: 0, signal: null, stdout: '' })
})

test('Q24: a call whose promise nobody awaits holds the process until it has settled', async () => {
  const ended = await runModule(`
    const runtime = new Runtime({ workers: 1 })
    const again = async (left) => {
      await runWork(runtime)
      if (left > 0) return again(left - 1)
      console.log('all')
    }
    void again(200)
  `)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'all\n', stderr: '' })
})

const inWorker = `
import { Worker } from 'node:worker_threads'
import { readdirSync, readlinkSync } from 'node:fs'
`

test('Q22, Q4: runtimes in two worker threads deliver to their own threads only', async () => {
  const ended = await runModule(
    `
    ${inWorker}
    const body = ${'`'}
      import { parentPort, workerData } from 'node:worker_threads'
      const load = async () => {
        const { Runtime } = await import(workerData.index)
        const { internals } = await import(workerData.runtime)
        const { loadAddon } = await import(workerData.native)
        const door = loadAddon().addon.testing
        const runtime = new Runtime({ workers: 2 })
        const seen = new Set([door.threadId()])
        const run = () => internals.get(runtime).operations.run({ name: 'testing.work', op: 'testing.work',
          request: { ends: 'value', gate: 0, stubborn: false, commits: false },
          onProgress: () => seen.add(door.threadId()) }, run).then(() => seen.add(door.threadId()))
        await Promise.all(Array.from({ length: 200 }, run))
        await runtime.close()
        parentPort.postMessage([...seen])
      }
      load()
    ${'`'}
    const root = process.argv[1]
    const workerData = Object.fromEntries(['index', 'runtime', 'native'].map((name) => [name, root + name + '.js']))
    const answers = await Promise.all([1, 2].map(() => new Promise((resolve, reject) => {
      const worker = new Worker(body, { eval: true, workerData })
      worker.once('message', resolve)
      worker.once('error', reject)
    })))
    console.log(answers.every((ids) => ids.length === 1), answers[0][0] !== answers[1][0])
  `,
    { args: [new URL('../../dist/', import.meta.url).href] },
  )
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'true true\n', stderr: '' })
})

test('Q22, Q25: terminating a worker thread at any moment of its runtimes’ lives crashes nothing and leaves no thread or fd', async () => {
  const ended = await runModule(
    `
    ${inWorker}
    const [root, seed] = process.argv.slice(1)
    let state = Number(seed) >>> 0
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return state / 2 ** 32
    }
    const body = ${'`'}
      import { parentPort, workerData } from 'node:worker_threads'
      const load = async () => {
        const { Runtime } = await import(workerData.root + 'index.js')
        const { internals } = await import(workerData.root + 'runtime.js')
        const { loadAddon } = await import(workerData.root + 'native.js')
        const door = loadAddon().addon.testing
        const coreOf = (runtime) => internals.get(runtime).drain.core
        parentPort.postMessage('loaded')
        const runtimes = []
        for (let n = 0; ; n++) {
          const runtime = new Runtime({ workers: 1 + (n % 3) })
          runtimes.push(runtime)
          const flood = new door.EventFlood(coreOf(runtime), { producers: 1, handles: 1, channels: 8, count: 0 })
          flood.start()
          const run = () => internals.get(runtime).operations.run({ name: 'w', op: 'testing.work',
            request: { ends: 'value', gate: n % 2 ? 0 : 1e6, stubborn: false, commits: false }, onProgress() {} }, run)
          const works = Array.from({ length: 8 }, () => run().catch(() => {}))
          if (n % 2) await Promise.all(works)
          if (n % 3 === 2) flood.stop()
          if (runtimes.length > 3) await runtimes.shift().close()
        }
      }
      load()
    ${'`'}
    // A module that Node was reading when its thread was terminated stays open: that is Node's, and no file of ours has such a name.
    const open = (fd) => { try { return readlinkSync('/proc/self/fd/' + fd) } catch { return '.js' } }
    const files = () => readdirSync('/proc/self/fd').map(open).filter((name) => !/\\.([cm]?js|json)$/.test(name))
    const count = () => [readdirSync('/proc/self/task').length, files().length]
    let before
    for (let round = 0; round < 25; round++) {
      const worker = new Worker(body, { eval: true, workerData: { root } })
      if (round % 5 !== 4) await new Promise((resolve) => worker.once('message', resolve))
      const spins = Math.floor(random() * 60)
      for (let i = 0; i < spins; i++) await new Promise((resolve) => setTimeout(resolve, 1))
      await worker.terminate()
      // The first round may start threads and open files that Node keeps.
      if (round === 1) before = count()
    }
    const deadline = Date.now() + 120_000
    while (count().some((now, index) => now > before[index]) && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 5))
    console.log(count().every((now, index) => now <= before[index]) ? 'clean' : JSON.stringify([before, count(), files()]))
  `,
    { args: [new URL('../../dist/', import.meta.url).href, String(SEED)] },
  )
  expect(ended, `seed ${SEED}`).toMatchObject({ code: 0, signal: null, stdout: 'clean\n' })
})

test('Q22: a worker that is stuck when the last thread with the addon ends finds its code in place, and so does the next thread', async () => {
  const root = new URL('../../dist/', import.meta.url).href
  // No prelude: this process's main thread must not load the addon.
  const ended = await runNode([
    '--input-type=module',
    '-e',
    `
    import { Worker } from 'node:worker_threads'
    import { readdirSync, readFileSync } from 'node:fs'
    const body = ${'`'}
      import { parentPort, workerData } from 'node:worker_threads'
      const load = async () => {
        const { Runtime } = await import('${root}index.js')
        const { internals } = await import('${root}runtime.js')
        const { loadAddon } = await import('${root}native.js')
        const run = () => internals.get(runtime).operations.run({ name: 'w', op: 'testing.work',
          request: { ends: 'value', gate: 1e6, stubborn: true, commits: false } }, run)
        const runtime = new Runtime({ workers: 1 })
        run().catch(() => {})
        const look = () => loadAddon().addon.testing.waitingAtGate() === workerData ? parentPort.postMessage('stuck') : setTimeout(look, 1)
        look()
      }
      load()
    ${'`'}
    const statusOf = (id) => { try { return readFileSync('/proc/self/task/' + id + '/status', 'utf8') } catch { return '' } }
    const wakeUps = () => readdirSync('/proc/self/task').map(statusOf).filter((text) => text.startsWith('Name:\tsluicebox-0'))
      .map((text) => Number(/^voluntary_ctxt_switches:\\s+(\\d+)/m.exec(text)[1]))
    for (let round = 1; round <= 2; round++) {
      const worker = new Worker(body, { eval: true, workerData: round })
      await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
      await worker.terminate()
      // The stuck ones wake up every few milliseconds, in code that is still there.
      const before = wakeUps()
      while (!wakeUps().every((count, index) => count > before[index] + 5)) await new Promise((resolve) => setImmediate(resolve))
      console.log(before.length)
    }
  `,
  ])
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: '1\n2\n', stderr: '' })
})

test('Q23, H26: process.exit() with a stuck worker in each of thirty runtimes takes the time of one', async () => {
  const ended = await runModule(`
    for (let i = 0; i < 30; i++) runWork(new Runtime({ workers: 1 }), { gate: 1, stubborn: true }).catch(() => {})
    const timer = setInterval(() => {
      if (door.waitingAtGate() < 30) return
      clearInterval(timer)
      console.log(Date.now())
      process.exit(7)
    }, 1)
  `)
  expect(ended).toMatchObject({ code: 7, signal: null })
  // The bound is fifteen joins, half of what thirty take.
  expect(ended.endedAt - Number(ended.stdout)).toBeLessThan(15_000)
})
