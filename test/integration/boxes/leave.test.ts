// Boxes that outlive the process that made them, and boxes that several processes use at once.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Box } from '../../../lib/index.js'
import { eventually, runtimeOver, soon, streams, type Transport, transports } from '../../support/boxes.js'
import { type Running, startModule } from '../../support/child.js'
import { makeFolder } from '../../support/folder.js'
import { asMachine, needMachines, ORDERLY } from '../../support/machine.js'
import { openRuntime } from '../../support/producer.js'
import { gone, keeperOf, traceOf } from '../../support/traces.js'

/** Counts on, whoever listens. */
const counter = `setsid sh -c 'n=0; while :; do n=$((n+1)); echo $n > /var/tmp/count; sleep 0.1; done' >/dev/null 2>&1 &`
const count = async (box: Box) => Number((await box.run(['cat', '/var/tmp/count'])).stdout)

/** By a process that has ended since. */
async function leftBox(transport: Transport, home: string, name: string): Promise<{ id: string }> {
  const isMachine = transport === 'machine'
  if (isMachine) needMachines()
  const settings = JSON.stringify({ home, isolation: isMachine ? 'vm' : 'namespace' })
  const options = JSON.stringify({ ...(isMachine && asMachine()), name })
  const maker = startModule(
    `
    const runtime = new Runtime(${settings})
    const box = await runtime.create(${options})
    await box.shell(${JSON.stringify(`mkdir -p /var/tmp; ${counter}`)}, { check: true })
    await runtime.close({ boxes: 'leave' })
    console.log(box.id)
    // Its stdin is ours.
    process.exit()
  `,
    { SLUICEBOX_TRANSPORT: transport },
  )
  const id = await maker.line()
  expect(await maker.ended).toEqual({ code: 0, signal: null })
  return { id }
}

describe.each(transports)('%s', (transport) => {
  test('B10: a box that was left runs on, is adopted by the next runtime, and is left again or stopped by it', async () => {
    const home = makeFolder()('home')
    const { id } = await leftBox(transport, home, 'web')
    const trace = traceOf(id)
    const next = runtimeOver(transport, { home })
    expect(await next.list()).toMatchObject([{ id, name: 'web', state: 'running' }])
    const adopted = await next.get('web')
    expect(adopted.state).toBe('running')
    expect((await adopted.info()).startedAt).toEqual(expect.any(Date))
    const seen = await count(adopted)
    await eventually(
      () => count(adopted),
      (now) => now > seen,
      'the box to go on',
    )
    expect((await adopted.run(['sh', '-c', 'exit 7'])).exitCode).toBe(7)
    await adopted[Symbol.asyncDispose]()
    expect(keeperOf(id)?.pid).toBe(trace.keeper.pid)
    const again = await next.get('web')
    expect(await count(again)).toBeGreaterThan(seen)
    expect(await again.stop(ORDERLY)).toBe('requested')
    await gone({ ...trace, id })
    await again.remove()
    expect(existsSync(join(home, 'boxes', id))).toBe(false)
  })

  test('B10, H9: executions of who leaves end, and are told their end before close() resolves', async () => {
    const home = makeFolder()('home')
    const runtime = runtimeOver(transport, { home })
    const box = await runtime.create({ name: 'web' })
    const sleeping = await box.exec(['sleep', '1000'])
    const stubborn = await box.exec(['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 1; done'])
    await stubborn.waitForLine('ready')
    await runtime.close({ boxes: 'leave', timeoutMs: 60_000 })
    expect(sleeping.exit).toMatchObject({ signal: 'SIGTERM' })
    expect(stubborn.exit).toMatchObject({ signal: 'SIGKILL' })
    const adopted = await runtimeOver(transport, { home }).get('web')
    expect((await adopted.run(['sh', '-c', 'ps 2>/dev/null | grep -c "[s]leep 1000" || true'])).stdout).toBe('0')
  })

  test('B10, B9: a box that was adopted ends with who adopted it, when that is killed', async () => {
    const home = makeFolder()('home')
    const { id } = await leftBox(transport, home, 'web')
    const trace = traceOf(id)
    const adopter = startModule(`
      const runtime = new Runtime({ home: ${JSON.stringify(home)} }).ref()
      const box = await runtime.get('web')
      console.log(box.state)
      await new Promise(() => {})
    `)
    expect(await adopter.line()).toBe('running')
    expect(keeperOf(id)?.pid).toBe(trace.keeper.pid)
    adopter.kill('SIGKILL')
    await gone({ ...trace, id })
  })
})

/** In a process of its own: gets the box, and runs in it what it is told, line by line. */
const user = (home: string) => `
  const runtime = new Runtime({ home: ${JSON.stringify(home)} }).ref()
  const box = await runtime.get('web').catch((error) => error)
  console.log(box.code ?? box.state)
  box.on?.('stopped', (reason) => console.log('stopped ' + reason))
  for await (const script of { [Symbol.asyncIterator]: () => lines }) {
    if (script === 'close') await runtime.close().then(() => console.log('closed'))
    else if (script === 'stop') await box.stop()
    else console.log((await box.shell(script)).stdout)
  }
`

describe.each(streams)('%s', (transport) => {
  test('B42, B5: a second process lists, gets and runs in a live box; its end ends its executions and nothing else', async () => {
    const home = makeFolder()('home')
    const runtime = runtimeOver(transport, { home })
    const box = await runtime.create({ name: 'web' })
    const own = await box.exec(['cat'], { stdin: 'pipe' })
    const other = startModule(user(home), { SLUICEBOX_TRANSPORT: transport })
    expect(await other.line()).toBe('running')
    other.tell('hostname; sleep 1234 & echo $! > /tmp/other; echo of the other')
    expect(await other.line()).toBe(box.id.slice(0, 12))
    const alive = async () => (await box.shell('kill -0 $(cat /tmp/other) && cat /tmp/started')).exitCode === 0
    other.tell('echo yes > /tmp/started; exec sleep 4321')
    await eventually(alive, (is) => is, 'the other to run')
    other.kill('SIGKILL')
    await eventually(
      async () => (await box.shell('cat /proc/[0-9]*/cmdline | tr "\\0" " "')).stdout,
      (all) => !all.includes('sleep 4321'),
      'its execution to end',
    )
    // A daemon that it began is the box's, as with any other execution.
    expect(await alive()).toBe(true)
    expect(box.state).toBe('running')
    await own.stdin.write('still here')
    await own.stdin.end()
    expect((await own.wait()).exitCode).toBe(0)
    const second = await openRuntime({ home }).create({ name: 'web', ifExists: 'reuse' })
    expect(second.id).toBe(box.id)
    expect(await second.executions()).toEqual([])
  })

  test('B42: close() of a second process leaves the box to its owner, and its stop() is the owner’s news', async () => {
    const home = makeFolder()('home')
    const box = await runtimeOver(transport, { home }).create({ name: 'web' })
    const [one, two] = [1, 2].map(() => startModule(user(home), { SLUICEBOX_TRANSPORT: transport })) as [
      Running,
      Running,
    ]
    expect([await one.line(), await two.line()]).toEqual(['running', 'running'])
    one.tell('close')
    expect(await one.line()).toBe('closed')
    expect((await box.run(['echo', 'on'])).stdout).toBe('on')
    const stopped = new Promise((resolve) => box.once('stopped', resolve))
    const running = await box.exec(['sleep', '1000'])
    two.tell('stop')
    expect(await two.line()).toBe('stopped requested')
    expect(await soon(stopped, 'the news')).toBe('requested')
    expect(box.state).toBe('stopped')
    expect(await running.wait()).toMatchObject({ signal: 'SIGTERM' })
    await box.start()
    expect((await box.run(['echo', 'again'])).stdout).toBe('again')
  })
})

describe('machine', () => {
  test('B42: a machine is one process’s at a time, and says so to a second one', async () => {
    const home = makeFolder()('home')
    const box = await runtimeOver('machine', { home }).create({ name: 'web' })
    const other = startModule(user(home))
    expect(await other.line()).toBe('IN_USE')
    expect((await box.run(['echo', 'on'])).stdout).toBe('on')
  })

  test('B10: a machine that talks on its console while it is left goes on, and one that turns itself off is stopped', async () => {
    const home = makeFolder()('home')
    const runtime = runtimeOver('machine', { home })
    const boxes = await Promise.all(['talks', 'ends'].map((name) => runtime.create({ name })))
    const [talks, ends] = boxes as [Box, Box]
    const talk =
      'for i in $(seq 1 3000); do echo "line $i of a guest that has much to say on its console"; done > /dev/console'
    await talks.shell(`setsid sh -c '${talk}; echo done > /root/talked; sync' >/dev/null 2>&1 &`)
    await ends.shell('setsid sh -c "sleep 2; poweroff -f || echo o > /proc/sysrq-trigger" >/dev/null 2>&1 &')
    await runtime.close({ boxes: 'leave' })
    const next = runtimeOver('machine', { home })
    await eventually(
      async () => (await next.list({ name: 'ends' }))[0]?.state,
      (state) => state === 'stopped',
      'the machine to be off',
    )
    const adopted = await next.get('talks')
    await eventually(
      async () => (await adopted.run(['cat', '/root/talked'])).stdout,
      (text) => text === 'done',
      'all to be said',
    )
  })
})
