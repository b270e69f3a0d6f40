// run() and shell(): results for any exit code, errors that keep the output, caps, encodings and callbacks.
import { execFileSync } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { describe, expect, test } from 'vitest'
import { ExecFailedError, ExecOverflowError } from '../../../lib/index.js'
import { boxOver, runtimeOver, transports } from '../../support/boxes.js'
import { rejection } from '../../support/producer.js'

describe.each(transports)('%s', (transport) => {
  test('X60: run() resolves on any exit code; check rejects with the whole result', async () => {
    const box = await boxOver(transport)
    const script = 'echo out; echo err >&2; exit 3'
    const result = await box.shell(script)
    expect(result).toMatchObject({ exitCode: 3, ok: false, stdout: 'out', stderr: 'err', boxId: box.id, cwd: '/' })
    expect(result.argv).toEqual(['/bin/sh', '-c', script])
    const error = (await rejection(box.shell(script, { check: true }))) as ExecFailedError
    expect(error).toBeInstanceOf(ExecFailedError)
    expect(error).toMatchObject({
      code: 'EXEC_FAILED',
      op: 'box.shell',
      boxId: box.id,
      result: { exitCode: 3, stdout: 'out' },
    })
    expect(error.message).toContain('exit code 3')
  })

  test('X61: shell() passes the script whole; escapedCommand is read back by sh as the same argv', async () => {
    const box = await boxOver(transport)
    expect((await box.shell(`printf '%s|' "$0" 'a b' "it's"; echo "$#"`)).stdout).toBe(`/bin/sh|a b|it's|0`)
    const argv = ['printf', '%s', "it's\n\x1b[31m$(x)", '']
    const { escapedCommand } = await box.run(argv)
    expect(escapedCommand).not.toMatch(/\p{Cc}/u)
    expect(execFileSync('sh', ['-c', `${escapedCommand}`], { encoding: 'utf8' })).toBe(argv[2])
  })

  test('X34: past maxBuffer the process is killed and EXEC_OVERFLOW has exactly the cap', async () => {
    const box = await boxOver(transport)
    const error = (await rejection(box.run(['yes'], { maxBuffer: 1000 }))) as ExecOverflowError
    expect(error).toBeInstanceOf(ExecOverflowError)
    expect(error).toMatchObject({ code: 'EXEC_OVERFLOW', maxBuffer: 1000, stream: 'stdout' })
    expect(error.result.stdout).toBe('y\n'.repeat(500))
    expect(error.result.truncated?.stdout).toBeGreaterThan(0)
  })

  test.each([
    ['truncate-tail', '1\n2\n3\n4\n5\n'],
    ['truncate-head', '98\n99\n100\n'.slice(-10)],
  ] as const)('X34: %s keeps exactly the cap, counts the rest and kills nothing', async (overflow, stdout) => {
    const box = await boxOver(transport)
    const result = await box.run(['seq', '100'], { maxBuffer: 10, overflow })
    expect(result).toMatchObject({ exitCode: 0, stdout, truncated: { stdout: 282, stderr: 0 } })
  })

  test('encodings and the final newline', async () => {
    const box = await boxOver(transport)
    const argv = ['printf', '\\303\\251\\n\\n']
    expect((await box.run(argv)).stdout).toBe('é\n')
    expect((await box.run(argv, { stripFinalNewline: false })).stdout).toBe('é\n\n')
    expect((await box.run(argv, { encoding: 'latin1' })).stdout).toBe('\xc3\xa9\n')
    expect([...(await box.run(argv, { encoding: 'buffer' })).stdout]).toEqual([0xc3, 0xa9, 10])
  })

  test('onStdout hears every chunk, and while its promise is pending no more is read', async () => {
    const box = await boxOver(transport)
    let [busy, most, heard] = [0, 0, 0]
    const onStdout = async (chunk: Uint8Array) => {
      most = Math.max(most, ++busy)
      await new Promise((resolve) => setImmediate(resolve))
      heard += chunk.length
      busy--
    }
    const { stdout } = await box.shell('yes | head -c 3000000', { onStdout, stripFinalNewline: false })
    expect(stdout.length).toBe(3_000_000)
    expect(heard).toBe(3_000_000)
    expect(most).toBe(1)
  })

  test('Q9: a callback that throws or rejects is told as listenerError, and the output is whole', async () => {
    const runtime = runtimeOver(transport)
    const told: unknown[] = []
    runtime.on('listenerError', (error, event) => told.push([(error as Error).message, event]))
    const box = await runtime.create()
    const result = await box.shell('echo out; echo err >&2', {
      onStdout() {
        throw new Error('thrown')
      },
      onStderr: () => Promise.reject(new Error('rejected')),
    })
    expect(result).toMatchObject({ stdout: 'out', stderr: 'err' })
    expect(told).toHaveLength(2)
    expect(told).toContainEqual(['thrown', { target: 'box.shell', name: 'onStdout' }])
    expect(told).toContainEqual(['rejected', { target: 'box.shell', name: 'onStderr' }])
  })

  test('H32: an aborted signal spawns nothing, and many runs leave no listener on theirs', async () => {
    const box = await boxOver(transport)
    const gone = AbortSignal.abort('never')
    expect(await rejection(box.run(['touch', '/tmp/spawned'], { signal: gone }))).toBe('never')
    expect((await box.run(['ls', '/tmp/spawned'])).exitCode).not.toBe(0)
    const { signal } = new AbortController()
    for (let n = 0; n < 50; n++) await box.run(['true'], { signal })
    expect(getEventListeners(signal, 'abort').length).toBe(0)
  })
})
