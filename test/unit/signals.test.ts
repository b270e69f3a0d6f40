// Signals by name and number.
import { constants } from 'node:os'
import { expect, test } from 'vitest'
import { describeSignal, signalName, signalNumber } from '../../lib/signals.js'

test('X18, X43: every signal of the host has a number, a name that leads back to it, and a description', () => {
  for (const [name, number] of Object.entries(constants.signals)) {
    expect(signalNumber(name)).toBe(number)
    expect(signalNumber(signalName(number))).toBe(number)
    expect(describeSignal(signalName(number))).not.toBe('Real-time signal')
  }
})

test('X18: real-time signals are counted from SIGRTMIN, and a number without a name breaks nothing', () => {
  expect(signalName(34)).toBe('SIGRTMIN+0')
  expect(signalNumber('SIGRTMIN+30')).toBe(64)
  expect(describeSignal('SIGRTMIN+3')).toBe('Real-time signal')
  for (let number = 1; number <= 64; number++) expect(signalName(number)).toMatch(/^SIG/)
})

test.each(['', 'TERM', 'sigterm', 'SIGRTMIN', 'SIGRTMIN+31', 'SIGRTMIN+-1', 'toString', '__proto__', '15'])(
  'X43: %j is no signal',
  (name) => {
    expect(signalNumber(name)).toBe(undefined)
  },
)
