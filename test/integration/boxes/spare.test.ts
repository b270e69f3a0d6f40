// What is begun ahead of need: the next box takes it, and it goes with the runtime.
import { expect, test } from 'vitest'
import { eventually, runtimeOver } from '../../support/boxes.js'
import { allProcesses, descendantsOf, isSpare, keeperOf } from '../../support/traces.js'

const spares = () => allProcesses().filter(({ pid, ppid }) => ppid === process.pid && isSpare(pid))

/** And has begun its box: before that, the next box may do without it. */
const oneSpare = () =>
  eventually(
    spares,
    ([spare, more]) => spare !== undefined && !more && descendantsOf(spare.pid).length > 0,
    'one keeper to be started ahead of need',
  )

test('a runtime without boxes starts nothing; after the first box one keeper waits, and the next box has it', async () => {
  const runtime = runtimeOver('passed')
  await runtime.list()
  expect(spares()).toEqual([])
  const first = await runtime.create()
  const [spare] = await oneSpare()
  const second = await runtime.create()
  expect(keeperOf(second.id)?.pid).toBe(spare?.pid)
  expect((await second.run(['cat', '/etc/hostname'])).stdout).toBe(second.id.slice(0, 12))
  expect(keeperOf(first.id)?.pid).not.toBe(spare?.pid)
  await oneSpare()
  await runtime.close()
  expect(spares()).toEqual([])
})

test('a keeper that was killed while it waited harms no box', async () => {
  const runtime = runtimeOver('passed')
  await runtime.create()
  const [spare] = await oneSpare()
  process.kill(spare?.pid as number, 'SIGKILL')
  const next = await runtime.create()
  expect((await next.run(['echo', 'fine'])).stdout).toBe('fine')
  await runtime.close()
})
