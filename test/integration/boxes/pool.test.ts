// Boxes made ahead: each goes to one caller, once, and what nobody took goes with the pool.
import { expect, test } from 'vitest'
import { eventually, runtimeOver, soon } from '../../support/boxes.js'
import { rejection } from '../../support/producer.js'
import { gone, traceOf } from '../../support/traces.js'

test('B31: a pool hands each box to one caller and makes the next behind it', async () => {
  const runtime = runtimeOver('passed')
  const pool = await runtime.pool({ size: 2, env: { FROM: 'pool' }, labels: { kind: 'pool' } })
  expect([pool.size, pool.ready]).toEqual([2, 2])
  const taken = await Promise.all(Array.from({ length: 6 }, () => soon(pool.acquire(), 'a box')))
  expect(new Set(taken.map(({ id }) => id)).size).toBe(6)
  expect((await taken[0]?.run(['printenv', 'FROM']))?.stdout).toBe('pool')
  await eventually(
    () => pool.ready,
    (ready) => ready === 2,
    'the pool to be full again',
  )
  const own = await pool.acquire({ env: { MINE: 'yes' }, labels: { owner: 'me' } })
  expect((await own.run(['sh', '-c', 'echo $FROM $MINE'])).stdout).toBe('pool yes')
  expect((await runtime.list({ labels: { owner: 'me', kind: 'pool' } })).map(({ id }) => id)).toEqual([own.id])
})

test('B31: an abort while waiting leaves the pool whole; close() removes what nobody took and spares what somebody has', async () => {
  const runtime = runtimeOver('passed')
  const pool = await runtime.pool({ size: 1 })
  const mine = await pool.acquire()
  const abort = new AbortController()
  const waits = [pool.acquire({ signal: abort.signal }), pool.acquire({ signal: abort.signal })].map(rejection)
  abort.abort(new Error('no more'))
  for (const error of await Promise.all(waits)) expect(error).toMatchObject({ message: 'no more' })
  await eventually(
    () => pool.ready,
    (ready) => ready === 1,
    'the pool to be full',
  )
  const others = (await runtime.list()).filter(({ id }) => id !== mine.id)
  const traces = others.map(({ id }) => traceOf(id))
  await soon(pool.close(), 'the close')
  expect(pool.ready).toBe(0)
  for (const trace of traces) await gone(trace)
  expect((await mine.run(['echo', 'mine'])).stdout).toBe('mine')
  expect(await rejection(pool.acquire())).toMatchObject({ code: 'BOX_STATE' })
  await pool.close()
})

test('B31: a box that dies while it waits is replaced, and those who wait at close() are told', async () => {
  const runtime = runtimeOver('passed')
  const pool = await runtime.pool({ size: 1 })
  const [idle] = await runtime.list()
  process.kill(traceOf(idle?.id as string).keeper.pid, 'SIGKILL')
  await eventually(
    async () => (await runtime.list()).map(({ id }) => id),
    (ids) => pool.ready === 1 && ids.length === 1 && ids[0] !== idle?.id,
    'another box',
  )
  await pool.acquire()
  const late = Promise.allSettled([pool.acquire()])
  await pool.close()
  // The next box may have been there already.
  const [end] = await soon(late, 'the one who waits')
  if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'BOX_STATE' })
})

test('a pool that cannot be made, or not so, is refused and leaves nothing', async () => {
  const runtime = runtimeOver('passed')
  const pool = (options: object) => rejection(runtime.pool(options as never))
  expect(await pool({ size: 0 })).toMatchObject({ argument: 'size' })
  expect(await pool({})).toMatchObject({ argument: 'size' })
  expect(await pool({ size: 1, name: 'web' })).toMatchObject({ argument: 'name' })
  expect(await pool({ size: 1, start: false })).toMatchObject({ argument: 'start' })
  expect(await pool({ size: 2, rootfs: { directory: '/none' } })).toMatchObject({ code: 'BOX_START' })
  await eventually(
    () => runtime.list(),
    (boxes) => boxes.length === 0,
    'nothing to be left',
  )
})
