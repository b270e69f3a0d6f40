// What vitest's JSON report says: of one rule, and of what failed.

/** 'passed', 'failed', or in words why it is neither. Only a failed test whose title names the rule has caught a mutant: a run also ends badly when it does not compile or is cut off. */
export function verdictOf(report, rule, exitCode) {
  const named = new RegExp(`^([QHXSBIP]\\d+, )*${rule}[:,]`)
  const ran = report.testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ title, status }) => named.test(title) && (status === 'passed' || status === 'failed'))
  if (ran.some(({ status }) => status === 'failed')) return 'failed'
  if (ran.length === 0) return 'no vitest test that names it ran'
  return exitCode === 0 ? 'passed' : `vitest ended with ${exitCode}, and no test that names it failed`
}

/** A text for each failed test, for each file that failed without one, and for each file that was cut off: where it is,
 * and what it said. A crash of its process leaves a file 'passed', and its tests from there on pending. */
export function failuresOf(report) {
  return report.testResults.flatMap(({ name, status, message, assertionResults }) => {
    const failed = assertionResults.filter((test) => test.status === 'failed')
    const told = failed.map(({ fullName, failureMessages }) => `${name} > ${fullName}\n${failureMessages.join('\n')}`)
    const cutOff = assertionResults.filter((test) => test.status === 'pending')
    if (cutOff.length > 0)
      told.push(`${name}\nits process ended before these did:\n${cutOff.map((test) => test.fullName).join('\n')}`)
    if (status === 'failed' && told.length === 0) return [`${name}\n${message}`]
    return told
  })
}
