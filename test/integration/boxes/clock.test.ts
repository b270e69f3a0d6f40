// How long a box may run, in all and unused.
import { expect, test } from 'vitest'
import { runtimeOver, soon } from '../../support/boxes.js'
import { rejection } from '../../support/producer.js'

test('B46, B30: a running execution and touch() hold off idleTimeoutMs; then the box stops, for being idle', async () => {
  const runtime = runtimeOver('passed')
  const box = await runtime.create({ name: 'web', idleTimeoutMs: 400 })
  const stopped = new Promise((resolve) => box.once('stopped', resolve))
  expect((await box.run(['sleep', '1.2'])).exitCode).toBe(0)
  for (let i = 0; i < 8; i++) {
    await new Promise((resolve) => setTimeout(resolve, 150))
    box.touch()
  }
  expect(box.state).toBe('running')
  expect(await soon(stopped, 'the idle time to be over')).toBe('idle')
  expect(box.state).toBe('stopped')
  await box.start()
  expect(await box.stop()).toBe('requested')
})

test('B30: ttlMs counts all time, and ends what runs', async () => {
  const box = await runtimeOver('passed').create({ name: 'web', ttlMs: 5000, idleTimeoutMs: 60_000 })
  const stopped = new Promise((resolve) => box.once('stopped', resolve))
  const sleep = await box.exec(['sleep', '1000'])
  expect(await soon(stopped, 'its time to be over')).toBe('ttl')
  expect(await sleep.wait()).toMatchObject({ signal: 'SIGTERM' })
})

test("B46: with onIdle: 'pause' the next call resumes the box", async () => {
  const box = await runtimeOver('machine').create({ idleTimeoutMs: 500, onIdle: 'pause' })
  await soon(box.waitForState('paused'), 'the pause')
  expect((await box.run(['echo', 'awake'])).stdout).toBe('awake')
  expect(box.state).toBe('running')
  await soon(box.waitForState('paused'), 'the next pause')
  await box.pause()
  await box.resume()
  expect(box.state).toBe('running')
})

test('times that are none, and a pause that cannot be, are refused', async () => {
  const create = (options: object) => rejection(runtimeOver('passed').create(options))
  expect(await create({ idleTimeoutMs: 0 })).toMatchObject({ argument: 'idleTimeoutMs' })
  expect(await create({ ttlMs: -1 })).toMatchObject({ argument: 'ttlMs' })
  expect(await create({ idleTimeoutMs: 1000, onIdle: 'sleep' })).toMatchObject({ argument: 'onIdle' })
  expect(await create({ idleTimeoutMs: 1000, onIdle: 'pause' })).toMatchObject({ code: 'UNSUPPORTED' })
})
