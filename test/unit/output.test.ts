// One stream and its readers, over a lane made by hand: who gets which bytes, who makes it wait, and when its end counts as told.
import { expect, test } from 'vitest'
import type { Core } from '../../lib/native.js'
import { Output, type Reader } from '../../lib/output.js'
import { lines, textOf } from '../../lib/readers/iterators.js'
import { Pull } from '../../lib/readers/pull.js'
import { toReadable, toWebStream } from '../../lib/readers/streams.js'
import { turn, until } from '../support/producer.js'

const HIGH_WATER_MARK = 1000

/** A lane as the native side has it, without a bound. */
class HandMade {
  bytes = Buffer.alloc(0)
  isEnded = false
  reads = 0
  discarded = 0
  moves = 0
  readonly output: Output

  constructor() {
    const core = { read: (_id: number, _lane: number, limit: number) => this.read(limit) } as unknown as Core
    this.output = new Output('stdout', 1, true, {
      core,
      handle: 1,
      highWaterMark: HIGH_WATER_MARK,
      later: (work) => void setImmediate(work),
      moved: () => void this.moves++,
      discard: () => void this.discarded++,
    })
  }

  read(limit: number) {
    this.reads++
    const chunk = Buffer.from(this.bytes.subarray(0, limit))
    this.bytes = this.bytes.subarray(limit)
    return { chunk, more: this.bytes.length > 0, ended: this.isEnded && this.bytes.length === 0 }
  }

  write(text: string): void {
    this.bytes = Buffer.concat([this.bytes, Buffer.from(text)])
    this.output.readable()
  }

  end(): void {
    this.isEnded = true
    this.output.readable()
  }
}

class Taker implements Reader {
  ready = true
  idle = true
  text = ''
  ended: Error | true | undefined
  chunk(chunk: Buffer): void {
    this.text += chunk
  }
  end(error?: Error): void {
    this.ended = error ?? true
  }
}

const settle = async () => {
  for (let n = 0; n < 5; n++) await turn()
}

test('X31: what comes before the first reader is not read, and the first reader begins with it', async () => {
  const lane = new HandMade()
  lane.write('early ')
  await settle()
  expect(lane.reads).toBe(0)
  const taker = new Taker()
  lane.output.attach(taker)
  lane.write('late')
  await settle()
  expect(taker.text).toBe('early late')
  expect(lane.output.position).toBe(10)
})

test('X48: readers added in one go see the same bytes, the slow one slows all, and one that leaves is let go', async () => {
  const lane = new HandMade()
  const [fast, slow] = [new Taker(), new Taker()]
  lane.write('one ')
  lane.output.attach(fast)
  lane.output.attach(slow)
  await settle()
  slow.ready = false
  lane.write('two ')
  await settle()
  expect([fast.text, slow.text]).toEqual(['one ', 'one '])
  slow.ready = true
  lane.output.wake()
  await settle()
  expect([fast.text, slow.text]).toEqual(['one two ', 'one two '])
  slow.ready = false
  lane.write('three')
  await settle()
  lane.output.detach(slow)
  await settle()
  expect([fast.text, slow.text]).toEqual(['one two three', 'one two '])
})

test('X33: pause() holds everybody, resume() goes on where it stopped', async () => {
  const lane = new HandMade()
  const taker = new Taker()
  lane.output.attach(taker)
  lane.write('a')
  lane.output.pause()
  lane.write('b')
  await settle()
  expect(taker.text).toBe('a')
  lane.output.resume()
  await settle()
  expect(taker.text).toBe('ab')
})

test('X47: a looker uses nothing up: the first reader gets what it saw, from the first byte', async () => {
  const lane = new HandMade()
  const [looker, second, taker] = [new Taker(), new Taker(), new Taker()]
  lane.output.look(looker)
  lane.write('seen ')
  await settle()
  expect([looker.text, lane.output.position]).toEqual(['seen ', 0])
  lane.output.detach(looker)
  lane.output.look(second)
  expect(second.text).toBe('seen ')
  lane.output.attach(taker)
  lane.write('more')
  await settle()
  expect([looker.text, second.text, taker.text]).toEqual(['seen ', 'seen more', 'seen more'])
})

test('X47: what only lookers saw is kept up to the high-water mark', async () => {
  const lane = new HandMade()
  lane.output.look(new Taker())
  for (let n = 0; n < 100; n++) {
    lane.write(`${n}`.padEnd(100))
    await turn()
  }
  const taker = new Taker()
  lane.output.attach(taker)
  await until(
    () => taker.text.length >= HIGH_WATER_MARK,
    () => taker.text.length,
  )
  expect(taker.text.length).toBe(HIGH_WATER_MARK)
  expect(taker.text.trimEnd().endsWith('99')).toBe(true)
})

test('X36: with the end of the process a reader gets its own bytes and no more', async () => {
  const lane = new HandMade()
  const taker = new Taker()
  lane.output.attach(taker)
  lane.write('own ')
  lane.bytes = Buffer.from('bytes, and the orphan’s')
  lane.output.processEnded(9)
  expect(lane.output.isSettled).toBe(false)
  lane.output.readable()
  await settle()
  expect([taker.text, taker.ended, lane.output.isSettled]).toEqual(['own bytes', true, true])
  expect(lane.discarded).toBe(1)
})

test('X64: a stream nobody reads is settled with the process, and what it holds stays readable', async () => {
  const lane = new HandMade()
  lane.write('held')
  lane.output.processEnded(4)
  expect(lane.output.isSettled).toBe(true)
  expect(lane.output.isSpent).toBe(false)
  const taker = new Taker()
  lane.output.attach(taker)
  await settle()
  expect([taker.text, taker.ended, lane.output.isSpent]).toEqual(['held', true, true])
  const late = new Taker()
  lane.output.attach(late)
  await settle()
  expect([late.text, late.ended]).toEqual(['', true])
})

test('a reader that the end found holds it up until its consumer has taken all, or it leaves', async () => {
  const lane = new HandMade()
  const [taker, other] = [new Taker(), new Taker()]
  taker.idle = false
  lane.output.attach(taker)
  lane.output.attach(other)
  lane.write('x')
  lane.end()
  await settle()
  lane.output.processEnded(1)
  expect(lane.output.isSettled).toBe(false)
  taker.idle = true
  expect(lane.output.isSettled).toBe(true)
  taker.idle = false
  lane.output.detach(taker)
  expect(lane.output.isSettled).toBe(true)
})

test('abandon() ends every reader with its error, and those that come later', async () => {
  const lane = new HandMade()
  const [taker, late] = [new Taker(), new Taker()]
  taker.ready = false
  lane.output.attach(taker)
  lane.write('lost')
  const error = new Error('gone')
  lane.output.abandon(error)
  expect([taker.text, taker.ended]).toEqual(['', error])
  lane.output.attach(late)
  await settle()
  expect(late.ended).toBe(error)
})

test('a stream that does not exist ends at once', async () => {
  const output = new Output('stderr', 2, false, { later: setImmediate, moved() {} } as never)
  const taker = new Taker()
  output.attach(taker)
  await settle()
  expect(taker.ended).toBe(true)
})

test('X12, Q12: a flood is read in pieces, one in a turn', async () => {
  const lane = new HandMade()
  const taker = new Taker()
  lane.output.attach(taker)
  await settle()
  lane.write('x'.repeat(2 ** 20))
  const first = taker.text.length
  expect(first).toBeLessThan(2 ** 20)
  await turn()
  expect(taker.text.length).toBeLessThan(2 ** 20)
  await until(
    () => taker.text.length === 2 ** 20,
    () => taker.text.length,
  )
})

test('X49: an iterator holds little, comes back for more, and leaves when the loop is left', async () => {
  const lane = new HandMade()
  const pull = new Pull([lane.output])
  lane.write('x'.repeat(300_000))
  await settle()
  expect(lane.reads).toBe(1)
  const piece = await pull.take()
  expect(piece?.chunk.length).toBe(64 * 1024)
  pull.close()
  await settle()
  expect(await pull.take()).toBe(undefined)
  const rest = new Taker()
  lane.output.attach(rest)
  await settle()
  expect(rest.text.length).toBe(300_000 - 64 * 1024)
})

test('lines() of a stream end with it, and an abort ends them with its reason', async () => {
  const lane = new HandMade()
  const found: string[] = []
  const reading = (async () => {
    for await (const line of textOf(lines([lane.output], false, undefined))) found.push(line)
  })()
  lane.write('a\nb')
  lane.end()
  await reading
  expect(found).toEqual(['a', 'b'])
  const controller = new AbortController()
  const other = new HandMade()
  const stuck = lines([other.output], false, controller.signal).next()
  controller.abort('enough')
  await expect(stuck).rejects.toBe('enough')
  expect(other.output.hasReader).toBe(false)
})

test('a Readable begins to read when it is read from, makes the lane wait, and counts as idle once it was consumed', async () => {
  const lane = new HandMade()
  const stream = toReadable(lane.output)
  lane.write('x'.repeat(2 ** 20))
  await settle()
  expect(lane.reads).toBe(0)
  stream.once('readable', () => {})
  await settle()
  expect(lane.reads).toBe(1)
  lane.end()
  let length = 0
  for await (const chunk of stream) length += chunk.length
  expect(length).toBe(2 ** 20)
  lane.output.processEnded(2 ** 20)
  expect(lane.output.isSettled).toBe(true)
})

test('a Readable whose process was lost does not end as if it were whole', async () => {
  const lane = new HandMade()
  const stream = toReadable(lane.output)
  const reading = (async () => {
    for await (const _ of stream);
  })()
  await settle()
  const error = new Error('lost')
  lane.output.processEnded(undefined, error)
  lane.end()
  await expect(reading).rejects.toBe(error)
})

test('a web stream reads when asked, and lets go when cancelled', async () => {
  const lane = new HandMade()
  const reader = toWebStream([lane.output]).getReader()
  lane.write('ab')
  await settle()
  expect(lane.reads).toBe(0)
  const { value } = await reader.read()
  expect(String(Buffer.from(value as Uint8Array))).toBe('ab')
  await reader.cancel()
  expect(lane.output.hasReader).toBe(false)
})
