// What run() keeps of the output: caps, their accounting, and the order of both streams.
import { expect, test } from 'vitest'
import { Transcript } from '../../lib/readers/collector.js'
import { seeded } from '../support/producer.js'

const make = (options: Partial<ConstructorParameters<typeof Transcript>[0]> = {}) => {
  const overflows: string[] = []
  const transcript = new Transcript({
    maxBuffer: 10,
    overflow: 'error',
    all: true,
    onOverflow: (stream) => overflows.push(stream),
    ...options,
  })
  return { transcript, overflows }
}

test('X34: at maxBuffer nothing happens, one byte above is told by its stream, and exactly the cap is kept', () => {
  const { transcript, overflows } = make()
  transcript.add('stdout', Buffer.from('0123456789'))
  transcript.add('stderr', Buffer.from('x'))
  expect(overflows).toEqual([])
  transcript.add('stdout', Buffer.from('ab'))
  expect(overflows).toEqual(['stdout'])
  expect(String(transcript.bytesOf('stdout', false))).toBe('0123456789')
  expect(transcript.truncated).toEqual({ stdout: 2, stderr: 0 })
})

test.each([
  ['truncate-tail', (whole: Buffer, cap: number) => whole.subarray(0, cap)],
  ['truncate-head', (whole: Buffer, cap: number) => whole.subarray(Math.max(0, whole.length - cap))],
] as const)('X34: %s keeps exactly the cap of any chunks, counts the rest, and tells nothing', (overflow, expected) => {
  const random = seeded(3)
  for (let round = 0; round < 200; round++) {
    const maxBuffer = Math.floor(random() * 30)
    const { transcript, overflows } = make({ maxBuffer, overflow })
    const written = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) }
    for (let n = 0; n < 12; n++) {
      const from = random() < 0.5 ? 'stdout' : 'stderr'
      const chunk = Buffer.from(Array.from({ length: Math.floor(random() * 12) }, () => 97 + Math.floor(random() * 26)))
      written[from] = Buffer.concat([written[from], chunk])
      transcript.add(from, chunk)
    }
    let kept = 0
    for (const from of ['stdout', 'stderr'] as const) {
      const bytes = transcript.bytesOf(from, false)
      expect(bytes).toEqual(expected(written[from], maxBuffer))
      expect(transcript.truncated[from]).toBe(written[from].length - bytes.length)
      kept += bytes.length
    }
    expect(transcript.bytesOf('all', false).length).toBe(kept)
    expect(overflows).toEqual([])
  }
})

test('X33: all has both streams in the order they came, and a character cut by the other stream is whole', () => {
  const { transcript } = make({ maxBuffer: 100 })
  const [first, second] = [Buffer.from('é').subarray(0, 1), Buffer.from('é').subarray(1)]
  transcript.add('stdout', Buffer.concat([Buffer.from('a'), first]))
  transcript.add('stderr', Buffer.from('!'))
  transcript.add('stdout', second)
  transcript.add('stderr', Buffer.from('\n'))
  expect(transcript.textOf('all', false, 'utf8')).toBe('a!é\n')
  expect(transcript.textOf('all', true, 'utf8')).toBe('a!é')
  expect(transcript.textOf('stdout', true, 'utf8')).toBe('aé')
})

test('X34: an endless output under truncate-head takes the memory of its cap', () => {
  const { transcript } = make({ maxBuffer: 1000, overflow: 'truncate-head' })
  const chunk = Buffer.from('0123456789')
  for (let n = 0; n < 300_000; n++) transcript.add('stdout', chunk)
  expect(transcript.truncated.stdout).toBe(2_999_000)
  expect(transcript.bytesOf('all', false).length).toBe(1000)
})
