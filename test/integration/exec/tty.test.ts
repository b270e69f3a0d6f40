// Executions on a terminal: what the program sees, what control characters do, its size, and what is left when it goes.
import { describe, expect, test } from 'vitest'
import { boxOver, eventually, hear, soon, textOf, transports } from '../../support/boxes.js'
import { rejection } from '../../support/producer.js'

describe.each(transports)('%s', (transport) => {
  test('X9: test -t holds on 0, 1 and 2, stderr arrives in stdout, TERM is set, /dev/tty opens', async () => {
    const box = await boxOver(transport)
    const script = 'test -t 0 && test -t 1 && test -t 2 && echo tty; echo "$TERM"; echo err >&2; echo direct > /dev/tty'
    const { stdout, stderr, exitCode } = await box.shell(script, { tty: true })
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
    expect(stdout.split('\r\n')).toEqual(['tty', 'xterm', 'err', 'direct'])
  })

  test('X9: job control works', async () => {
    const box = await boxOver(transport)
    const { stdout } = await box.shell('set -m; sleep 1000 & kill %1; wait %1; echo $?', { tty: true })
    expect(stdout).toMatch(/143\s*$/)
  })

  test.each([
    [0x03, 'SIGINT'],
    [0x1c, 'SIGQUIT'],
  ])('X11: the character %i sends %s to the foreground group', async (character, signal) => {
    const box = await boxOver(transport)
    const execution = await box.exec(['sh', '-c', 'echo ready; exec sleep 1000'], { tty: true, stdin: 'pipe' })
    await execution.waitForLine('ready')
    await execution.stdin.write(Buffer.from([character]))
    expect(await soon(execution.wait(), 'its end')).toMatchObject({ signal })
  })

  test('X11: the character 0x1a stops the foreground group', async () => {
    const box = await boxOver(transport)
    const script = 'set -m; sh -c "echo ready; exec sleep 1000"; echo stopped $?; kill -9 %1'
    const execution = await box.exec(['bash', '-c', script], { tty: true, stdin: 'pipe' })
    await execution.waitForLine('ready')
    await execution.stdin.write(Buffer.from([0x1a]))
    expect(await soon(execution.waitForLine(/stopped \d+/), 'it to stop')).toContain('stopped 148')
  })

  test('X12: 0x04 at the start of a line ends cat, and end() acts as that', async () => {
    const box = await boxOver(transport)
    for (const how of ['character', 'end'] as const) {
      const cat = await box.exec(['cat'], { tty: true, stdin: 'pipe' })
      await cat.stdin.write('line\n')
      await cat.waitForLine('line')
      if (how === 'character') await cat.stdin.write(Buffer.from([4]))
      else await cat.stdin.end()
      expect(await soon(cat.wait(), 'its end')).toMatchObject({ exitCode: 0 })
    }
  })

  test('X13: on a terminal without input cat ends by itself', async () => {
    const box = await boxOver(transport)
    expect(await soon(box.run(['cat'], { tty: true }), 'its end')).toMatchObject({ exitCode: 0 })
  })

  test('X14: the size is set before the first instruction; resize() sends SIGWINCH, and stty agrees', async () => {
    const box = await boxOver(transport)
    expect((await box.run(['stty', 'size'], { tty: { cols: 101, rows: 37 } })).stdout).toBe('37 101')
    const script = 'trap "stty size; exit 0" WINCH; echo ready; while :; do sleep 0.05; done'
    const execution = await box.exec(['sh', '-c', script], { tty: true })
    await execution.waitForLine('ready')
    await execution.resize({ cols: 65_535, rows: 1 })
    expect(await soon(execution.waitForLine(/^\d+ \d+$/), 'the new size')).toBe('1 65535')
    expect(await execution.wait()).toMatchObject({ exitCode: 0 })
  })

  test('X15: resize() without a terminal, of a bad size, and after the end is typed', async () => {
    const box = await boxOver(transport)
    const plain = await box.exec(['sleep', '1000'])
    expect(await rejection(plain.resize({ cols: 1, rows: 1 }))).toMatchObject({ code: 'UNSUPPORTED' })
    await plain.kill('SIGKILL')
    const tty = await box.exec(['sleep', '1000'], { tty: true })
    for (const size of [{ cols: 0, rows: 1 }, { cols: 1, rows: -1 }, { cols: 65_536, rows: 1 }, { cols: 1 }, null])
      expect(await rejection(tty.resize(size as never))).toMatchObject({ code: 'INVALID_ARGUMENT' })
    await tty.kill('SIGKILL')
    await tty.wait()
    expect(await rejection(tty.resize({ cols: 1, rows: 1 }))).toMatchObject({ code: 'EXEC_NOT_FOUND' })
  })

  test('X16: disposing hangs up the session: its background jobs get SIGHUP', async () => {
    const box = await boxOver(transport)
    const script = `set -m; sh -c 'trap "echo hup > /tmp/hup; exit" HUP; echo up; while :; do sleep 0.05; done' & wait`
    // Not by force: it is the hang-up that is to reach the job.
    const options = { tty: true, stdin: 'pipe', forceKillAfterMs: 60_000 } as const
    const shell = await box.exec(['bash', '-i', '-c', script], options)
    await soon(shell.waitForLine('up'), 'the job')
    await soon(shell[Symbol.asyncDispose](), 'dispose')
    await eventually(
      () => box.run(['cat', '/tmp/hup']),
      ({ stdout }) => stdout === 'hup',
      'the hang-up to be noticed',
    )
  })

  test('a terminal answers: what is typed comes back, and the program reads it', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['sh', '-c', 'printf "name? "; read name; echo "hello $name"'], {
      tty: true,
      stdin: 'pipe',
    })
    const { stdout, end } = hear(execution)
    await execution.stdin.write('world\n')
    await soon(end, 'its end')
    expect(textOf(stdout)).toContain('hello world\r\n')
  })
})
