// Executions, how they end: by themselves, by a signal, by their time, by an abort, with their box; and who learns of it.
import { describe, expect, test } from 'vitest'
import { type Box, ExecTimeoutError, type Execution, type RunOptions } from '../../../lib/index.js'
import { boxOver, eventually, hear, runtimeOver, soon, textOf, transports } from '../../support/boxes.js'
import { rejection, turn } from '../../support/producer.js'
import { traceOf } from '../../support/traces.js'

/** Says so when it is ready, and does not go for a SIGTERM. */
const stubborn = ['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done']
/** A child in the same group, whose pid it prints. */
const parent = 'sleep 1000 & echo $!; wait'

/** What run() rejects with for a program that gets time enough to say something: on a busy host a start takes long. */
async function timedOut(box: Box, command: string[], options?: Pick<RunOptions, 'forceKillAfterMs'>): Promise<unknown> {
  for (let timeoutMs = 500; ; timeoutMs *= 4) {
    const error = await rejection(box.run(command, { ...options, timeoutMs }))
    if (!(error instanceof ExecTimeoutError) || error.result.stdout !== '' || timeoutMs > 30_000) return error
  }
}

describe.each(transports)('%s', (transport) => {
  test('X40: kill() reaches the whole group; scope process spares the children', async () => {
    const box = await boxOver(transport)
    for (const scope of ['group', 'process'] as const) {
      const execution = await box.exec(['sh', '-c', parent])
      const child = await execution.waitForLine(/^\d+$/)
      expect(await execution.kill('SIGKILL', { scope })).toBe(true)
      expect(await soon(execution.wait(), 'its end')).toMatchObject({ signal: 'SIGKILL', ok: false })
      const lives = () => box.run(['kill', '-0', child])
      if (scope === 'process') expect((await lives()).exitCode).toBe(0)
      else await eventually(lives, ({ exitCode }) => exitCode !== 0, 'the child to be gone')
    }
  })

  test('X41: what ignores SIGTERM gets SIGKILL after forceKillAfterMs, forced; false never escalates', async () => {
    const box = await boxOver(transport)
    const forced = await box.exec(stubborn, { forceKillAfterMs: 100 })
    await forced.waitForLine('ready')
    expect(await forced.kill()).toBe(true)
    expect(await soon(forced.wait(), 'its end')).toMatchObject({ signal: 'SIGKILL', forced: true, timedOut: false })
    const spared = await box.exec(stubborn, { forceKillAfterMs: false })
    await spared.waitForLine('ready')
    expect(await spared.kill()).toBe(true)
    expect(await rejection(spared.wait({ timeoutMs: 500 }))).toMatchObject({ code: 'WAIT_TIMEOUT' })
    expect(await spared.kill('SIGTERM', { forceAfterMs: 50 })).toBe(true)
    expect(await soon(spared.wait(), 'its end')).toMatchObject({ signal: 'SIGKILL', forced: true })
  })

  test('X43: SIGSTOP and SIGCONT are no exit, and an unknown name is INVALID_ARGUMENT', async () => {
    const box = await boxOver(transport)
    const cat = await box.exec(['cat'], { stdin: 'pipe' })
    const { stdout } = hear(cat)
    const state = () => box.shell(`cut -d" " -f3 /proc/${cat.pid}/stat`)
    expect(await cat.kill('SIGSTOP')).toBe(true)
    await eventually(state, (answer) => answer.stdout === 'T', 'it to stop')
    expect(cat.exit).toBe(undefined)
    expect(await cat.kill('SIGCONT')).toBe(true)
    await cat.stdin.end('on')
    expect(await soon(cat.wait(), 'its end')).toMatchObject({ exitCode: 0 })
    expect(textOf(stdout)).toBe('on')
    for (const name of ['TERM', 'SIGNONE', 9, null])
      expect(await rejection(cat.kill(name as never))).toMatchObject({ code: 'INVALID_ARGUMENT', argument: 'signal' })
  })

  test('H19: kill() after the end is false', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['true'])
    await execution.wait()
    expect(await execution.kill()).toBe(false)
    expect(await execution.kill('SIGKILL')).toBe(false)
    await execution[Symbol.asyncDispose]()
    expect(await execution.kill('SIGKILL')).toBe(false)
  })

  test('X44: timeoutMs ends the group by killSignal: wait() says so, run() rejects with the output so far', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['sh', '-c', parent], { timeoutMs: 200, killSignal: 'SIGINT' })
    expect(await soon(execution.wait(), 'its end')).toMatchObject({ timedOut: true, ok: false })
    const begun = await timedOut(box, ['sh', '-c', 'echo begun; exec sleep 1000'])
    expect(begun).toMatchObject({
      code: 'EXEC_TIMEOUT',
      result: { stdout: 'begun', signal: 'SIGTERM', timedOut: true, boxId: box.id },
    })
    expect((begun as ExecTimeoutError).timeoutMs).toBeGreaterThanOrEqual(500)
    const forced = await timedOut(box, stubborn, { forceKillAfterMs: 50 })
    expect(forced).toMatchObject({ code: 'EXEC_TIMEOUT', result: { stdout: 'ready', signal: 'SIGKILL', forced: true } })
  })

  test('X45: aborting run() kills the group, waits for its end, and rejects with the reason', async () => {
    const box = await boxOver(transport)
    const controller = new AbortController()
    const reason = new Error('enough')
    const onStdout = () => controller.abort(reason)
    expect(await rejection(box.run(['sh', '-c', parent], { signal: controller.signal, onStdout }))).toBe(reason)
    expect(await box.executions()).toEqual([])
    await eventually(
      () => box.shell('grep -slz "^sleep$" /proc/[0-9]*/cmdline | wc -l'),
      ({ stdout }) => stdout === '0',
      'the child to be gone',
    )
  })

  test('X45, H15: aborting wait() ends that wait only, and a parked one delays nothing', async () => {
    const box = await boxOver(transport)
    const cat = await box.exec(['cat'], { stdin: 'pipe' })
    const controller = new AbortController()
    const [aborted, parked] = [cat.wait({ signal: controller.signal }), cat.wait()]
    controller.abort('no more')
    expect(await rejection(aborted)).toBe('no more')
    await cat.stdin.write('x')
    expect(await cat.kill('SIGCONT')).toBe(true)
    await cat.stdin.end()
    expect(await soon(parked, 'its end')).toMatchObject({ exitCode: 0 })
    expect(await cat.wait()).toBe(await parked)
    expect(cat.exit).toBe(await parked)
  })

  test('X46: wait({ timeoutMs }) is WAIT_TIMEOUT and leaves the process alone', async () => {
    const box = await boxOver(transport)
    const sleep = await box.exec(['sleep', '1000'])
    expect(await rejection(sleep.wait({ timeoutMs: 20 }))).toMatchObject({ code: 'WAIT_TIMEOUT' })
    expect(await sleep.kill('SIGKILL')).toBe(true)
  })

  test('X47: waitForLine() matches across chunks, takes nothing from others, and rejects without a match', async () => {
    const box = await boxOver(transport)
    const script = `echo first; printf 'lis'; sleep 0.05; printf 'tening on 80\\n'; echo ready >&2; echo last`
    const execution = await box.exec(['sh', '-c', script])
    expect(await execution.waitForLine(/listening on \d+/g)).toBe('listening on 80')
    expect(await execution.waitForLine('ready', { from: 'stderr' })).toBe('ready')
    expect(await execution.waitForLine('listening')).toBe('listening on 80')
    expect(await rejection(execution.waitForLine('never'))).toMatchObject({ code: 'EXEC_FAILED' })
    const lines: string[] = []
    for await (const line of execution.lines()) lines.push(line)
    expect(lines).toEqual(['first', 'listening on 80', 'last'])
    const cat = await box.exec(['cat'], { stdin: 'pipe' })
    expect(await rejection(cat.waitForLine('x', { timeoutMs: 20 }))).toMatchObject({ code: 'WAIT_TIMEOUT' })
    expect(await rejection(cat.waitForLine(1 as never))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      argument: 'pattern',
    })
  })

  test('X53, H16: with its first process killed each execution is EXEC_LOST, calls settle, and the box has failed', async () => {
    const box = await runtimeOver(transport).create()
    const cats = await Promise.all([
      box.exec(['sleep', '1000'], { stdin: 'pipe' }),
      box.exec(['cat'], { stdin: 'pipe' }),
    ])
    const ends = cats.map((cat) => hear(cat).end)
    const stuck = cats[0].stdin.write(Buffer.alloc(2 ** 22))
    const failed = new Promise<Error>((resolve) => box.on('error', resolve))
    process.kill(traceOf(box.id).first.pid, 'SIGKILL')
    for (const end of ends) {
      const lost = (await soon(end, 'the news')) as Error
      expect(lost).toMatchObject({ code: 'EXEC_LOST' })
      // By its end, and not because it has said nothing for long.
      expect(lost.message).not.toContain('does not answer')
    }
    expect(await rejection(stuck)).toMatchObject({ code: 'STDIN_CLOSED' })
    for (const cat of cats) expect(await rejection(cat.wait())).toMatchObject({ code: 'EXEC_LOST' })
    await soon(failed, 'the box to fail')
    expect(box.state).toBe('failed')
    expect(await rejection(box.run(['true']))).toMatchObject({ code: 'BOX_STATE' })
  })

  test('X56: stopping a box tells each execution’s end before it is stopped', async () => {
    const box = await runtimeOver(transport).create({ name: 'web' })
    const order: string[] = []
    box.on('state', (state) => order.push(state))
    const executions = await Promise.all([
      box.exec(['sleep', '1000']),
      box.exec(stubborn),
      box.exec(['cat'], { stdin: 'pipe' }),
    ])
    executions.forEach((execution, n) => {
      execution.on('exit', () => order.push(`exit ${n}`))
      execution.on('error', () => order.push(`exit ${n}`))
    })
    await executions[1].waitForLine('ready')
    expect(await soon(box.stop({ timeoutMs: 200 }), 'the stop')).toMatch(/requested|killed/)
    expect(order.at(0)).toBe('stopping')
    expect(order.at(-1)).toBe('stopped')
    expect(order.toSorted()).toEqual(['exit 0', 'exit 1', 'exit 2', 'stopped', 'stopping'])
  })

  test('X58: at the process limit exec is EXEC_SPAWN EAGAIN, and works again after relief', async ({ skip }) => {
    const box = await runtimeOver(transport)
      .create({ maxProcesses: 20 })
      .catch((error) => error)
    if (box.code === 'UNSUPPORTED') return skip('this host enforces no process limit')
    const all: Execution[] = []
    let refused: unknown
    while (refused === undefined && all.length < 30)
      await box.exec(['sleep', '1000']).then(
        (execution: Execution) => all.push(execution),
        (error: unknown) => {
          refused = error
        },
      )
    expect(refused).toMatchObject({ code: 'EXEC_SPAWN', errno: 'EAGAIN' })
    for (const execution of all) {
      await execution.kill('SIGKILL')
      await execution.wait()
    }
    expect((await box.run(['true'])).ok).toBe(true)
  })

  test('X59: the box’s OOM killer shows as SIGKILL of that process; box and others live', async ({ skip }) => {
    const box = await runtimeOver(transport)
      // What a kernel needs to boot is not its programs' to have.
      .create({ memory: transport === 'machine' ? '96M' : '32M' })
      .catch((error) => error)
    if (box.code === 'UNSUPPORTED') return skip('this host enforces no memory limit')
    const cat = await box.exec(['cat'], { stdin: 'pipe' })
    const hog = await box.run(['sh', '-c', 'exec tail /dev/zero'])
    expect(hog).toMatchObject({ signal: 'SIGKILL' })
    await cat.stdin.end()
    expect(await cat.wait()).toMatchObject({ exitCode: 0 })
  })

  test('X62: durationMs is what passed, and startedAt when it began', async () => {
    const box = await boxOver(transport)
    const before = Date.now()
    const start = performance.now()
    const result = await box.run(['sleep', '0.3'])
    expect(result.durationMs).toBeGreaterThanOrEqual(295)
    // A machine has clocks of its own, which an emulator moves.
    const [slack, apart] = transport === 'machine' ? [100, 60_000] : [5, 1000]
    expect(result.durationMs).toBeLessThanOrEqual(performance.now() - start + slack)
    expect(result.startedAt.getTime()).toBeGreaterThan(before - apart)
    expect(result.startedAt.getTime()).toBeLessThan(Date.now() + apart)
    expect(result.usage?.maxRssBytes).toBeGreaterThan(0)
  })

  test('X63: executions that leave orphans leave no zombie', async () => {
    const box = await boxOver(transport)
    for (let round = 0; round < (transport === 'machine' ? 5 : 100); round++)
      await Promise.all(Array.from({ length: 10 }, () => box.run(['sh', '-c', 'sleep 0.01 >&- 2>&- &'])))
    await eventually(
      () => box.shell('cat /proc/[0-9]*/stat 2>/dev/null | cut -d" " -f3 | grep -c Z'),
      ({ stdout }) => stdout === '0',
      'no zombie',
    )
  })

  test('Q27, Q26: a listener added right after await hears everything, in the context of the call', async () => {
    const { AsyncLocalStorage } = await import('node:async_hooks')
    const storage = new AsyncLocalStorage<number>()
    const box = await boxOver(transport)
    await Promise.all(
      Array.from({ length: transport === 'machine' ? 20 : 40 }, (_, n) =>
        storage.run(n, async () => {
          const execution = await box.exec(['echo', `${n}`])
          const seen: (number | undefined)[] = []
          const { end, stdout } = hear(execution)
          execution.on('exit', () => seen.push(storage.getStore()))
          execution.on('stdout', () => seen.push(storage.getStore()))
          expect(await soon(end, 'exit')).toMatchObject({ exitCode: 0 })
          expect(textOf(stdout)).toBe(`${n}\n`)
          expect(new Set(seen)).toEqual(new Set([n]))
        }),
      ),
    )
  })

  test('H17, H20: close() settles every promise of an execution: with its true end, or RUNTIME_CLOSED', async () => {
    const runtime = runtimeOver(transport)
    const box = await runtime.create()
    const [sleep, cat, done] = await Promise.all([
      box.exec(['sleep', '1000']),
      box.exec(['cat'], { stdin: 'pipe' }),
      box.exec(['sh', '-c', 'exit 7']),
    ])
    await done.wait()
    const reading = (async () => {
      for await (const _ of cat.lines());
    })()
    const pending = [
      sleep.wait(),
      cat.wait(),
      cat.waitForLine('x'),
      cat.stdin.write(Buffer.alloc(2 ** 22)),
      reading,
      box.run(['sleep', '1000']),
      box.waitForState('failed'),
    ]
    const outcomes = Promise.allSettled(pending)
    await turn()
    await soon(runtime.close({ timeoutMs: 2000 }), 'close()')
    for (const { status, ...rest } of await soon(outcomes, 'every promise'))
      if (status === 'rejected') expect((rest as { reason: unknown }).reason).toHaveProperty('code')
    expect(done.exit).toMatchObject({ exitCode: 7 })
    expect(await sleep.wait().catch((error) => error.code)).toSatisfy(
      (end) => end === 'EXEC_LOST' || /SIG(TERM|KILL)/.test(end.signal),
    )
    expect(await sleep.kill()).toBe(false)
    expect(runtime.stats().handles.live).toBe(0)
  })
})
