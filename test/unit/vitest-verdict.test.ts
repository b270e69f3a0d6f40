// What counts as a mutant that was caught, and what a run says of its failures.
import { expect, test } from 'vitest'
import { failuresOf, verdictOf } from '../../scripts/vitest-verdict.mjs'

const report = (...tests: [title: string, status: string][]) => ({
  testResults: [{ assertionResults: tests.map(([title, status]) => ({ title, status })) }],
})

test.each([
  ['a failed test that names the rule', report(['Q1: x', 'failed'], ['Q1: y', 'passed']), 1, 'failed'],
  ['one that names it among others', report(['H2, Q1: x', 'failed']), 1, 'failed'],
  ['tests that pass', report(['Q1: x', 'passed'], ['Q2: x', 'skipped']), 0, 'passed'],
  ['a run that ends badly though its tests pass', report(['Q1: x', 'passed']), 1, 'vitest ended with 1'],
  ['another rule’s failure', report(['Q12: x', 'failed'], ['Q1: y', 'passed']), 1, 'vitest ended with 1'],
  ['a run that came to no test', report(), 1, 'no vitest test that names it ran'],
  ['tests that were left out', report(['Q1: x', 'skipped']), 0, 'no vitest test that names it ran'],
] as const)('the verdict on %s', (_what, given, code, verdict) => {
  expect(verdictOf(given, 'Q1', code)).toMatch(verdict)
})

test('failures: each failed test, each file that failed without one, and each that was cut off', () => {
  const passed = { fullName: 'a b', status: 'passed', failureMessages: [] }
  const failed = { fullName: 'a c', status: 'failed', failureMessages: ['expected 1 to be 2'] }
  const pending = { fullName: 'a d', status: 'pending', failureMessages: [] }
  const testResults = [
    { name: 'x.test.ts', status: 'failed', message: '', assertionResults: [passed, failed] },
    { name: 'y.test.ts', status: 'failed', message: 'does not load', assertionResults: [] },
    { name: 'z.test.ts', status: 'passed', message: '', assertionResults: [passed] },
    { name: 'crash.test.ts', status: 'passed', message: '', assertionResults: [passed, pending] },
  ]
  expect(failuresOf({ testResults })).toEqual([
    'x.test.ts > a c\nexpected 1 to be 2',
    'y.test.ts\ndoes not load',
    'crash.test.ts\nits process ended before these did:\na d',
  ])
})
