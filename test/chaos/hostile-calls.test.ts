// H31: what the addon's functions do with values that no caller should give them. In child processes: a crash ends one of them.
import { expect, test } from 'vitest'
import { runModule } from '../support/child.js'

const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? Date.now() % 1_000_000)

test.each([0, 1, 2, 3])(
  'H31: 4,000 random calls of the addon with hostile arguments crash nothing (part %i)',
  async (part) => {
    const ended = await runModule(
      `
    let state = (Number(process.argv[1]) * 4 + Number(process.argv[2])) >>> 0
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return state / 2 ** 32
    }
    const pick = (list) => list[Math.floor(random() * list.length)]
    const detached = () => {
      const array = new Uint32Array(256 * 6)
      structuredClone(array.buffer, { transfer: [array.buffer] })
      return array
    }
    const revoked = () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy }
    const throwing = () => new Proxy({}, { get() { throw new Error('trap') }, has() { throw new Error('trap') } })
    const options = () => ({ workers: 1, maxEvents: 8, maxBytes: 65536, directories: [], restrictCallers: false })
    const records = new Uint32Array(256 * 6)
    const cores = [new addon.Core(options(), records, () => {})]
    const values = [
      () => undefined, () => null, () => true, () => 0, () => -1, () => 1.5, () => NaN, () => Infinity, () => -Infinity,
      () => 2 ** 53, () => 2 ** 53 + 2, () => 2 ** 31, () => 1n, () => 2n ** 70n, () => Symbol('s'), () => '', () => 'x\\0y',
      () => '\\ud800', () => 'x'.repeat(100000), () => [], () => [1, 2], () => ({}), () => ({ length: 2 ** 32 }),
      () => () => {}, () => async () => {}, () => { class K {} ; return K }, () => new Uint8Array(4), () => new Uint32Array(4),
      () => records, () => detached(), () => new Uint32Array(new SharedArrayBuffer(256 * 24)), () => new DataView(new ArrayBuffer(8)),
      () => new Float64Array(2000), () => Buffer.alloc(9), () => new Date(), () => /x/, () => new Map(), () => new Error('e'),
      () => Promise.resolve(), () => revoked(), () => throwing(), () => Object.create(null), () => globalThis, () => cores[0],
      () => addon.Core, () => Object.create(addon.Core.prototype), () => options(),
      () => ({ ...options(), [pick(Object.keys(options()))]: pick(values)() }),
      () => ({ path: pick(values)(), repair: 'none', chain: true, shared: false, ends: 'value', gate: 0, stubborn: false, commits: false }),
      () => pick(['info', 'check', 'create', 'rebase', 'testing.work', 'nope']),
      () => Math.floor(random() * 2 ** 53), () => 2 ** 21 * Math.floor(random() * 4) + Math.floor(random() * 4),
    ]
    const methods = Object.getOwnPropertyNames(addon.Core.prototype).filter((name) => name !== 'constructor')
    let thrown = 0
    for (let i = 0; i < 4000; i++) {
      const args = Array.from({ length: Math.floor(random() * 4) }, () => pick(values)())
      try {
        const what = random()
        if (what < 0.15) {
          cores.push(new addon.Core(...args))
        } else if (what < 0.2) {
          const core = new addon.Core(options(), records, () => { throw new Error('listener') })
          if (cores.length < 12) cores.push(core)
          else core.shutdown(1000)
        } else {
          const name = pick(methods)
          // Waiting a second in each shutdown would be all that is tested.
          if (name === 'shutdown' && random() < 0.8) continue
          const self = random() < 0.85 ? pick(cores) : pick(values)()
          addon.Core.prototype[name].apply(self, name === 'shutdown' ? [10] : args)
        }
      } catch { thrown++ }
      if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    for (const core of cores) core.shutdown(5000)
    console.log(thrown > 1000 ? 'survived' : 'too few errors: ' + thrown)
  `,
      { args: [String(SEED), String(part)] },
    )
    expect(ended, `seed ${SEED}`).toMatchObject({ signal: null, stdout: 'survived\n' })
  },
)

test('H31, H1: stale, foreign and invented ids are nobody’s handle', async () => {
  const ended = await runModule(`
    const [one, two] = [new Runtime(), new Runtime()]
    const core = coreOf(one)
    const ids = []
    for (let i = 0; i < 1000; i++) {
      const id = core.submit('testing.work', { ends: 'value', gate: 0, stubborn: false, commits: false }, true)
      core.claim(id)
      ids.push(id)
    }
    const live = core.submit('testing.work', { ends: 'value', gate: 1, stubborn: false, commits: false }, true)
    const invented = [0, 1, -1, 0.5, NaN, Infinity, 2 ** 53, live + 1, live + 2 ** 21, live - 2 ** 21, 2 ** 21 - 1, '1', null, {}]
    const answers = [...ids, ...invented].map((id) => [core.claim(id), core.progress(id), core.cancel(id)])
    console.log(answers.every(([claim, progress, cancel]) => claim === undefined && progress === undefined && cancel === false))
    console.log(coreOf(two).stats().handles.claimed, core.stats().handles.live, core.cancel(live), core.claim(live) !== undefined)
    door.openGate(1)
    await one.close()
    await two.close()
  `)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'true\n0 1 true true\n', stderr: '' })
})

test('H31: a records buffer detached while events wait is an error that the program hears, not a crash', async () => {
  const ended = await runModule(`
    const records = new Uint32Array(256 * 6)
    process.on('uncaughtException', (error) => { console.log(error.message); clearTimeout(timer) })
    const core = globalThis.kept = new addon.Core({ workers: 1, maxEvents: 8, maxBytes: 65536, directories: [], restrictCallers: false }, records, () => {})
    core.submit('testing.work', { ends: 'value', gate: 0, stubborn: false, commits: false }, false)
    structuredClone(records.buffer, { transfer: [records.buffer] })
    const timer = setTimeout(() => console.log('nothing came'), 30_000)
  `)
  expect(ended).toMatchObject({ signal: null, stdout: 'the records buffer was detached\n' })
})

test.each([
  'maxEvents: 2 ** 32 - 1',
  'maxEvents: 2 ** 21',
  'maxEvents: 2 ** 16 + 1',
  'maxEvents: 0',
  'maxBytes: 0',
  'workers: 0',
  'workers: 1025',
])('H31: a Core of %s is refused before anything is allocated', async (count) => {
  const ended = await runModule(`
      const options = { workers: 1, maxEvents: 8, maxBytes: 65536, directories: [], restrictCallers: false, ${count} }
      try { new addon.Core(options, new Uint32Array(256 * 6), () => {}) } catch { console.log('refused') }
      console.log(process.resourceUsage().maxRSS < 300_000)
    `)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'refused\ntrue\n' })
})
