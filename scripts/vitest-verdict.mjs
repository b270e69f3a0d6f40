// What vitest's JSON report says of one rule: 'passed', 'failed', or in words why it says neither.

/** Only a failed test whose title names the rule has caught a mutant: a run also ends badly when it does not compile or is cut off. */
export function verdictOf(report, rule, exitCode) {
  const named = new RegExp(`^([QHXSBIP]\\d+, )*${rule}[:,]`)
  const ran = report.testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ title, status }) => named.test(title) && (status === 'passed' || status === 'failed'))
  if (ran.some(({ status }) => status === 'failed')) return 'failed'
  if (ran.length === 0) return 'no vitest test that names it ran'
  return exitCode === 0 ? 'passed' : `vitest ended with ${exitCode}, and no test that names it failed`
}
