// Lines out of chunks, wherever the chunks were cut.
import { expect, test } from 'vitest'
import { LineSplitter, lengthWithoutNewline } from '../../lib/readers/lines.js'
import { seeded } from '../support/producer.js'

function split(chunks: readonly (string | Buffer)[], preserve = false): string[] {
  const splitter = new LineSplitter(preserve)
  return [...chunks.flatMap((chunk) => splitter.push(Buffer.from(chunk))), ...splitter.end()]
}

test.each([
  [['a\nb\n'], ['a', 'b']],
  [['a\r\nb\r\n'], ['a', 'b']],
  [
    ['a\r', '\nb'],
    ['a', 'b'],
  ],
  [['a\nlast'], ['a', 'last']],
  [['\n\n\r\n'], ['', '', '']],
  [['a\rb\n'], ['a\rb']],
  [[''], []],
  [['a', 'b', 'c\n'], ['abc']],
  [['\r'], ['\r']],
])('X35: %j has the lines %j', (chunks, lines) => {
  expect(split(chunks)).toEqual(lines)
})

test('X35: with preserveNewlines the lines joined are the text', () => {
  expect(split(['a\r\nb\n', '\nc'], true)).toEqual(['a\r\n', 'b\n', '\n', 'c'])
})

test('H14, X35: any cut of a text in many scripts gives the same lines', () => {
  const random = seeded(7)
  const text = Array.from({ length: 200 }, (_, n) => `${n} é日本𝄞${'x'.repeat(n % 7)}${n % 3 ? '\n' : '\r\n'}`).join('')
  const bytes = Buffer.from(text)
  for (let round = 0; round < 50; round++) {
    const chunks: Buffer[] = []
    for (let at = 0; at < bytes.length; ) {
      const end = at + 1 + Math.floor(random() * 9)
      chunks.push(bytes.subarray(at, end))
      at = end
    }
    expect(split(chunks)).toEqual(text.split(/\r?\n/).slice(0, -1))
  }
})

test('X35: a line of 10 MB in small chunks costs what its bytes cost', () => {
  const chunk = Buffer.alloc(1000, 'x')
  const splitter = new LineSplitter()
  const start = process.cpuUsage()
  let lines = 0
  for (let n = 0; n < 10_000; n++) lines += splitter.push(chunk).length
  expect(lines).toBe(0)
  const [line] = splitter.push(Buffer.from('\n'))
  expect(line?.length).toBe(10_000_000)
  // The processor's time, not that of the clock on the wall, which goes on for whoever else runs here.
  expect(process.cpuUsage(start).user).toBeLessThan(5e6)
})

test.each([
  ['', 0],
  ['\n', 0],
  ['\r\n', 0],
  ['a\n\n', 2],
  ['a\r', 2],
  ['a\n\r\n', 2],
])('X35: %j without one newline has %i bytes', (text, length) => {
  expect(lengthWithoutNewline(Buffer.from(text))).toBe(length)
})
