// Executions, their stdin: what reaches the process, when it sees the end, and what becomes of those who write to nobody.
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { boxOver, eventually, hear, soon, textOf, transports } from '../../support/boxes.js'
import { rejection } from '../../support/producer.js'

const MIB = 2 ** 20
const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

describe.each(transports)('%s', (transport) => {
  test('X1: by default stdin is at its end: cat exits 0 with empty output', async () => {
    const box = await boxOver(transport)
    expect(await box.run(['cat'])).toMatchObject({ exitCode: 0, ok: true, stdout: '', stderr: '' })
  })

  const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, n) => (n * 7) % 256))
  const sources: [string, () => object][] = [
    ['input as bytes', () => ({ input: bytes })],
    ['a Readable', () => ({ stdin: Readable.from([bytes.subarray(0, 5), bytes.subarray(5)]) })],
    ['a web stream', () => ({ stdin: Readable.toWeb(Readable.from([bytes.subarray(0, 5), bytes.subarray(5)])) })],
    ['an iterable', () => ({ stdin: [bytes.subarray(0, 1), Buffer.alloc(0), bytes.subarray(1)] })],
    [
      'an async iterable',
      () => ({
        stdin: (async function* () {
          yield bytes.subarray(0, 77_777)
          yield bytes.subarray(77_777)
        })(),
      }),
    ],
  ]
  test.each(sources)('X2: %s reaches cat byte-exact, then EOF', async (_, source) => {
    const box = await boxOver(transport)
    const { stdout, exitCode } = await box.run(['cat'], { ...source(), encoding: 'buffer', stripFinalNewline: false })
    expect(exitCode).toBe(0)
    expect(Buffer.compare(stdout as Buffer, bytes)).toBe(0)
  })

  test.each(['pipe', 'ignore', 'é日本𝄞', ''])('X2: the text %j as input is sent as it is', async (input) => {
    const box = await boxOver(transport)
    expect((await box.run(['cat'], { input })).stdout).toBe(input)
  })

  test('X3: with a pipe the process waits until end()', async () => {
    const box = await boxOver(transport)
    const cat = await box.exec(['cat'], { stdin: 'pipe' })
    const { stdout, end } = hear(cat)
    await cat.stdin.write('one ')
    await eventually(
      () => new Promise<string>((resolve) => setImmediate(() => resolve(textOf(stdout)))),
      (text) => text === 'one ',
      'the first word',
    )
    expect(cat.exit).toBe(undefined)
    await cat.stdin.end('two')
    expect(await soon(end, 'the end of cat')).toMatchObject({ exitCode: 0 })
    expect(textOf(stdout)).toBe('one two')
    expect(cat.stdin.writable).toBe(false)
  })

  test('X3: 100 MB to a process that does not read leaves the host’s memory as it was', async () => {
    const box = await boxOver(transport)
    const chunk = Buffer.alloc(MIB, 'x')
    let given = 0
    const sleep = await box.exec(['sleep', '1000'], {
      stdin: (function* () {
        for (; given < 100; given++) yield chunk
      })(),
    })
    const before = process.memoryUsage().rss
    const started = performance.now()
    await eventually(
      () => new Promise<number>((resolve) => setImmediate(() => resolve(performance.now() - started))),
      (ms) => ms > 500,
      'half a second of feeding',
    )
    expect(given).toBeLessThan(5)
    expect(process.memoryUsage().rss - before).toBeLessThan(16 * MIB)
    await sleep.kill('SIGKILL')
    expect((await soon(sleep.wait(), 'its end')).signal).toBe('SIGKILL')
  })

  test('X3, X5: writes that wait when the process ends are STDIN_CLOSED', async () => {
    const box = await boxOver(transport)
    const sleep = await box.exec(['sleep', '1000'], { stdin: 'pipe' })
    const stuck = [sleep.stdin.write(Buffer.alloc(4 * MIB)), sleep.stdin.write('more'), sleep.stdin.end()]
    await sleep.kill('SIGKILL')
    const outcomes = await soon(Promise.allSettled(stuck), 'the writes')
    expect(outcomes.slice(0, 2)).toMatchObject([
      { reason: { code: 'STDIN_CLOSED' } },
      { reason: { code: 'STDIN_CLOSED' } },
    ])
    expect(outcomes[2]?.status).toBe('fulfilled')
  })

  test('X4: a source that throws closes stdin, kills the process and is the cause of the rejection', async () => {
    const box = await boxOver(transport)
    const mine = new Error('mine')
    const stdin = (async function* () {
      yield Buffer.from('some')
      throw mine
    })()
    const error = (await rejection(box.run(['sh', '-c', 'cat; sleep 1000'], { stdin }))) as Error
    expect(error).toMatchObject({ code: 'EXEC_FAILED', result: { signal: 'SIGTERM' } })
    expect(error.cause).toBe(mine)
    expect(await box.executions()).toEqual([])
  })

  test('X5: head -c1 fed 10 MB exits 0', async () => {
    const box = await boxOver(transport)
    const input = Buffer.alloc(10 * MIB, 'y')
    expect(await box.run(['head', '-c1'], { input })).toMatchObject({ exitCode: 0, stdout: 'y' })
    expect(await box.run(['head', '-c1'], { stdin: Readable.from([input]) })).toMatchObject({
      exitCode: 0,
      stdout: 'y',
    })
  })

  test('X5: a write to a process that closed its stdin, or ended, is STDIN_CLOSED', async () => {
    const box = await boxOver(transport)
    const closed = await box.exec(['sh', '-c', 'exec <&-; echo closed; exec sleep 1000'], { stdin: 'pipe' })
    await closed.waitForLine('closed')
    // The pipe itself may take a first write before anybody says that its reader is gone.
    await eventually(
      () =>
        closed.stdin.write('x'.repeat(MIB)).then(
          () => undefined,
          (error) => error.code,
        ),
      (code) => code === 'STDIN_CLOSED',
      'a refused write',
    )
    expect(closed.stdin.writable).toBe(false)
    await closed.kill('SIGKILL')
    const ended = await box.exec(['true'], { stdin: 'pipe' })
    await ended.wait()
    expect(await rejection(ended.stdin.write('x'))).toMatchObject({ code: 'STDIN_CLOSED' })
    await ended.stdin.end()
  })

  test('X6: end() is a half-close: sort prints after it, and a second end() resolves', async () => {
    const box = await boxOver(transport)
    const sort = await box.exec(['sort'], { stdin: 'pipe' })
    await sort.stdin.write('b\na\n')
    await Promise.all([sort.stdin.end(), sort.stdin.end()])
    const lines: string[] = []
    for await (const line of sort.lines()) lines.push(line)
    expect(lines).toEqual(['a', 'b'])
    await sort.stdin.end()
    expect(await rejection(sort.stdin.write('c'))).toMatchObject({ code: 'STDIN_CLOSED' })
    expect(await sort.wait()).toMatchObject({ exitCode: 0 })
  })

  const much = transport === 'machine' ? 25 : 100
  test(`X7: ${much} MB through cat both ways at once arrive as they were`, async () => {
    const box = await boxOver(transport)
    const block = randomBytes(MIB)
    const cat = await box.exec(['cat'], { stdin: Array.from({ length: much }, () => block) })
    const hash = createHash('sha256')
    let length = 0
    for await (const chunk of cat.stdout) {
      hash.update(chunk)
      length += chunk.length
    }
    const expected = createHash('sha256')
    for (let n = 0; n < much; n++) expected.update(block)
    expect(length).toBe(much * MIB)
    expect(hash.digest('hex')).toBe(expected.digest('hex'))
    expect(await cat.wait()).toMatchObject({ exitCode: 0 })
  })

  test('X10: without a terminal 0x03 and 0x04 are data', async () => {
    const box = await boxOver(transport)
    const { stdout } = await box.run(['cat'], { input: Buffer.from([3, 4, 26, 28]), encoding: 'buffer' })
    expect([...stdout]).toEqual([3, 4, 26, 28])
  })

  test('H34: a buffer may be changed as soon as write() has returned', async () => {
    const box = await boxOver(transport)
    const cat = await box.exec(['cat'], { stdin: 'pipe' })
    const buffer = randomBytes(MIB)
    const before = sha(buffer)
    const written = cat.stdin.write(buffer)
    buffer.fill(0)
    const hash = createHash('sha256')
    cat.on('stdout', (chunk) => hash.update(chunk))
    await written
    await cat.stdin.end()
    await cat.wait()
    expect(hash.digest('hex')).toBe(before)
  })

  test('a Writable of stdin pipes into the process and ends it', async () => {
    const box = await boxOver(transport)
    const cat = await box.exec(['cat'], { stdin: 'pipe' })
    const { stdout, end } = hear(cat)
    Readable.from(['a', 'b', 'c']).pipe(cat.stdin.toWritable())
    await soon(end, 'the end of cat')
    expect(textOf(stdout)).toBe('abc')
  })
})
