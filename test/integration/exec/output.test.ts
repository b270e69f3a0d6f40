// Executions, their output: every byte, in order, to everybody who reads, at the pace of the slowest; and what nobody reads.
import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { boxOver, eventually, hear, soon, textOf, transports } from '../../support/boxes.js'
import { nextWarning, rejection, turn, until } from '../../support/producer.js'

const MIB = 2 ** 20
/** Its own hash on stderr, so that what arrives can be held against it. */
const random = (mib: number) =>
  `head -c ${mib * MIB} /dev/urandom | tee /tmp/random; sha256sum < /tmp/random | cut -c-64 >&2`
/** So many bytes without a file. */
const flood = (size: number) => `yes 0123456789abcdef | head -c ${size}`

const hashOfFlood = (size: number): string => {
  const line = '0123456789abcdef\n'
  return createHash('sha256')
    .update(line.repeat(Math.ceil(size / line.length)).slice(0, size))
    .digest('hex')
}

describe.each(transports)('%s', (transport) => {
  // An emulated processor takes its time.
  const much = transport === 'machine' ? 16 : 64
  const size = transport === 'machine' ? 40_000_000 : 200_000_000
  test.each(['stdout', 'stderr'] as const)(
    `X28, H13: all byte values and ${much} MiB at random arrive whole on %s`,
    async (name) => {
      const box = await boxOver(transport)
      await box.shell(
        `i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %o $i)"; i=$((i+1)); done > /tmp/bytes; head -c ${much * MIB} /dev/urandom >> /tmp/bytes`,
      )
      const expected = (await box.shell('sha256sum < /tmp/bytes')).stdout.slice(0, 64)
      const execution = await box.exec(['sh', '-c', name === 'stdout' ? 'cat /tmp/bytes' : 'cat /tmp/bytes >&2'])
      const hash = createHash('sha256')
      let length = 0
      execution.on(name, (chunk) => {
        length += chunk.length
        hash.update(chunk)
      })
      await execution.wait()
      expect(length).toBe(much * MIB + 256)
      expect(hash.digest('hex')).toBe(expected)
    },
  )

  test(`X29, Q18: ${size / 1e6} MB against a stalled consumer take little memory, others run on, and resumed the hash agrees`, async () => {
    const box = await boxOver(transport)
    const before = process.memoryUsage().rss
    const execution = await box.exec(['sh', '-c', flood(size)])
    const hash = createHash('sha256')
    execution.on('stdout', (chunk) => hash.update(chunk))
    await until(
      () => execution.position.stdout > 0,
      () => execution.position,
    )
    execution.pause()
    for (let n = 0; n < 20; n++) expect((await box.run(['echo', 'on'])).stdout).toBe('on')
    expect(process.memoryUsage().rss - before).toBeLessThan(4 * MIB + 16 * MIB)
    expect(execution.exit).toBe(undefined)
    execution.resume()
    expect(await execution.wait()).toMatchObject({ exitCode: 0 })
    expect(hash.digest('hex')).toBe(hashOfFlood(size))
  })

  test('X30: killing and disposing an execution whose consumer is stalled take effect at once', async () => {
    const box = await boxOver(transport)
    for (const how of ['kill', 'dispose'] as const) {
      const yes = await box.exec(['yes'])
      yes.on('stdout', () => {})
      yes.pause()
      if (how === 'kill') {
        expect(await yes.kill('SIGKILL')).toBe(true)
        expect(await soon(yes.wait(), 'the end')).toMatchObject({ signal: 'SIGKILL' })
      } else await soon(yes[Symbol.asyncDispose](), 'the end')
      await yes[Symbol.asyncDispose]()
    }
  })

  test('X31, X64: output waits for its first reader, also after the end, and begins with byte 0', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['sh', '-c', 'echo one; echo two >&2'])
    expect(await soon(execution.wait(), 'its end')).toMatchObject({ exitCode: 0 })
    const lines: string[] = []
    for await (const line of execution.lines()) lines.push(line)
    const errors: string[] = []
    execution.stderr.setEncoding('utf8')
    for await (const text of execution.stderr) errors.push(text)
    expect([lines, errors.join('')]).toEqual([['one'], 'two\n'])
  })

  test('X32: a process that waits because nobody reads it is warned of by name, and its kill works', async () => {
    const box = await boxOver(transport)
    const warned = nextWarning(({ code, message }) => code === 'SLUICEBOX_STALLED' && message.includes('unread'))
    const yes = await box.exec(['yes'], { id: 'unread' })
    const warning = await soon(warned, 'the warning')
    expect(warning.message).toContain(box.id)
    expect(await yes.kill('SIGKILL')).toBe(true)
    expect(await soon(yes.wait(), 'its end')).toMatchObject({ signal: 'SIGKILL' })
  })

  test('X32: and so does its timeout', async () => {
    const box = await boxOver(transport)
    const yes = await box.exec(['yes'], { timeoutMs: 200, stderr: 'ignore' })
    expect(await soon(yes.wait(), 'its end')).toMatchObject({ signal: 'SIGTERM', timedOut: true })
  })

  test('X33: pause() and resume() at every turn neither lose, repeat nor reorder bytes', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['seq', '1', '200000'])
    const { stdout } = hear(execution)
    const ended = execution.wait()
    let over = false
    void ended.then(() => {
      over = true
    })
    while (!over) {
      execution.pause()
      await turn()
      execution.resume()
      await turn()
      await turn()
    }
    expect(textOf(stdout)).toBe(Array.from({ length: 200_000 }, (_, n) => `${n + 1}\n`).join(''))
  })

  test('X33: all loses nothing and keeps each stream’s order', async () => {
    const box = await boxOver(transport)
    const script = 'i=0; while [ $i -lt 500 ]; do echo "o$i"; echo "e$i" >&2; i=$((i+1)); done'
    const { all, stdout, stderr } = await box.shell(script, { all: true })
    const lines = (all as string).split('\n')
    // Chunks end with lines here: echo writes each in one piece.
    expect(lines.filter((line) => line.startsWith('o')).join('\n')).toBe(stdout)
    expect(lines.filter((line) => line.startsWith('e')).join('\n')).toBe(stderr)
    expect(lines.length).toBe(1000)
  })

  test('X35: lines() of CRLF, empty and unterminated lines, and of one with 10 MB', async () => {
    const box = await boxOver(transport)
    const read = async (script: string) => {
      const lines: string[] = []
      for await (const line of (await box.exec(['sh', '-c', script])).lines()) lines.push(line)
      return lines
    }
    expect(await read(`printf 'a\\r\\n\\nb\\nlast'`)).toEqual(['a', '', 'b', 'last'])
    const long = await read(`head -c 10000000 /dev/zero | tr '\\0' x; echo; echo next`)
    expect(long.map((line) => line.length)).toEqual([10_000_000, 4])
    expect((await box.run(['printf', 'a\n\n'])).stdout).toBe('a\n')
  })

  test('lines({ from: "all" }) says of which stream each line is', async () => {
    const box = await boxOver(transport)
    const found: object[] = []
    for await (const line of (await box.exec(['sh', '-c', 'echo o; echo e >&2'])).lines({ from: 'all' }))
      found.push(line)
    expect(found).toHaveLength(2)
    expect(found).toContainEqual({ from: 'stdout', line: 'o' })
    expect(found).toContainEqual({ from: 'stderr', line: 'e' })
  })

  test('X36: a background child holding the pipes does not hold back exit, and lives on without SIGPIPE', async () => {
    const box = await boxOver(transport)
    const script =
      '(trap "" HUP; while [ ! -e /tmp/go ]; do sleep 0.05; done; i=0; while [ $i -lt 200 ]; do echo orphan$i; i=$((i+1)); done; echo done > /tmp/alive; sleep 1000) & echo own'
    const execution = await box.exec(['sh', '-c', script])
    const { stdout, end, order } = hear(execution)
    // It waits for a word of ours, which comes after the exit only.
    expect(await soon(end, 'exit')).toMatchObject({ exitCode: 0 })
    expect(textOf(stdout)).toBe('own\n')
    expect(order.at(-1)).toBe('exit')
    await box.run(['touch', '/tmp/go'])
    await eventually(
      () => box.run(['cat', '/tmp/alive']),
      (answer) => answer.stdout === 'done',
      'the child to have written on',
    )
    expect(textOf(stdout)).toBe('own\n')
    expect(order.at(-1)).toBe('exit')
  })

  test('X37: a process that closes stdout and runs on: the stream ends, exit comes with its end', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['sh', '-c', 'echo last; exec >&-; read line; exit 5'], { stdin: 'pipe' })
    const chunks: Buffer[] = []
    for await (const chunk of execution.stdout) chunks.push(chunk)
    expect(textOf(chunks)).toBe('last\n')
    expect(execution.exit).toBe(undefined)
    await execution.stdin.end('\n')
    expect(await execution.wait()).toMatchObject({ exitCode: 5 })
  })

  test('H9, H10, H13, Q11: exit is the last event and the only terminal one, after every byte', async () => {
    const box = await boxOver(transport)
    for (let round = 0; round < 30; round++) {
      const execution = await box.exec(['sh', '-c', `head -c ${round * 20_000} /dev/zero; echo end; echo e >&2`])
      const heard = hear(execution)
      await soon(heard.end, 'exit')
      await turn()
      expect(heard.order.filter((event) => event === 'exit' || event === 'error')).toEqual(['exit'])
      expect(heard.order.at(-1)).toBe('exit')
      expect(Buffer.concat(heard.stdout).length).toBe(round * 20_000 + 4)
    }
  })

  test('X48: several readers each see every byte, a slow one slows all, and a stopped one is let go', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['sh', '-c', random(4)])
    const byListener = createHash('sha256')
    execution.on('stdout', (chunk) => byListener.update(chunk))
    const byIterator = createHash('sha256')
    const iterating = (async () => {
      for await (const event of execution) {
        if (event.type === 'stdout') byIterator.update(event.chunk)
        await turn()
      }
    })()
    const stopped = (async () => {
      for await (const _ of execution.stdout) return
    })()
    const byWeb = createHash('sha256')
    const web = (async () => {
      for await (const chunk of execution.readableStream()) byWeb.update(chunk as Uint8Array)
    })()
    let expected = ''
    for await (const line of execution.lines({ from: 'stderr' })) expected = line
    await soon(Promise.all([iterating, stopped, web, execution.wait()]), 'all readers')
    expect(byListener.digest('hex')).toBe(expected)
    expect(byIterator.digest('hex')).toBe(expected)
    expect(byWeb.digest('hex')).toBe(expected)
  })

  test('X49: leaving a for await loop leaves the process alone; await using ends it', async () => {
    const box = await boxOver(transport)
    let pid = 0
    {
      await using execution = await box.exec(['sh', '-c', 'while :; do echo tick; sleep 0.01; done'])
      pid = execution.pid
      for await (const line of execution.lines()) {
        expect(line).toBe('tick')
        break
      }
      expect((await box.run(['kill', '-0', `${pid}`])).exitCode).toBe(0)
      expect(await execution.waitForLine('tick')).toBe('tick')
    }
    expect((await box.run(['kill', '-0', `${pid}`])).exitCode).not.toBe(0)
    expect(await box.executions()).toEqual([])
  })

  test('X64: held bytes are readable after the end until dispose', async () => {
    const box = await boxOver(transport)
    const execution = await box.exec(['echo', 'held'])
    await execution.wait()
    await execution[Symbol.asyncDispose]()
    const reading = (async () => {
      for await (const _ of execution.lines());
    })()
    expect(await rejection(reading)).toMatchObject({ code: 'EXEC_NOT_FOUND' })
  })

  test('X65: ignore is /dev/null inside, and stderr into stdout keeps the order written', async () => {
    const box = await boxOver(transport)
    const where = 'where=$(readlink /proc/$$/fd/1); echo "$where" >&2'
    expect(await box.shell(where, { stdout: 'ignore' })).toMatchObject({ stdout: '', stderr: '/dev/null' })
    expect(await box.shell(`ls -l /proc/self/fd/2`, { stderr: 'ignore' })).toMatchObject({
      stdout: expect.stringMatching(/\/dev\/null$/),
      stderr: '',
    })
    const script = 'i=0; while [ $i -lt 200 ]; do echo "o$i"; echo "e$i" >&2; i=$((i+1)); done'
    const { stdout, stderr } = await box.shell(script, { stderr: 'stdout' })
    expect(stderr).toBe('')
    expect(stdout).toBe(Array.from({ length: 200 }, (_, n) => `o${n}\ne${n}`).join('\n'))
  })

  test('H14: text keeps characters that chunks cut', async () => {
    const box = await boxOver(transport)
    const script = `printf '\\303'; sleep 0.05; printf '\\251\\n'`
    const execution = await box.exec(['sh', '-c', script])
    const chunks: string[] = []
    for await (const chunk of execution.stdout.setEncoding('utf8')) chunks.push(chunk)
    expect(chunks.join('')).toBe('é\n')
    expect((await box.shell(script)).stdout).toBe('é')
  })
})
