// Prints each invariant of test/invariants.md with the tests that name it, or "later". Fails when a test names an id that is not in the
// list, when an id that the list calls built has no test, or when a mutant does not apply.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { capture, root } from './shell.mjs'

const list = readFileSync(join(root, 'test/invariants.md'), 'utf8')
const known = new Map()
for (const [, id, when, text] of list.matchAll(/^- \*\*([QHXSBIP]\d+)\*\*( \(later\))? (.+)$/gm)) {
  known.set(id, { later: when !== undefined, text, tests: [] })
}
// Habits: a test may name one, none has to.
const habits = new Set([...list.matchAll(/^- (P\d+): /gm)].map(([, id]) => id))

const unknown = []
for (const file of testFiles()) {
  const source = readFileSync(join(root, file), 'utf8')
  // Names of tests in both languages: TEST_CASE("Q1: …"), test('Q1, Q2: …', …), describe('H1 …', …).
  for (const [, title] of source.matchAll(
    /(?:TEST_CASE(?:_TEMPLATE|_FIXTURE)?|SUBCASE|test|it|describe)(?:\.each\([^)]*\)+)?\(\s*['"`]([^'"`]+)/g,
  )) {
    const ids = /^((?:[QHXSBIP]\d+)(?:[, ]+[QHXSBIP]\d+)*)\b/.exec(title)?.[1].match(/[QHXSBIP]\d+/g) ?? []
    for (const id of ids) {
      const entry = known.get(id)
      if (entry) entry.tests.push(file)
      else if (!habits.has(id)) unknown.push(`${id} in ${file}: "${title}"`)
    }
  }
}

// A mutant whose lines have moved on proves nothing; whether it is caught is `npm run mutants`' to say.
const stale = readdirSync(join(root, 'test/mutants'))
  .filter((file) => file.endsWith('.patch'))
  .filter((file) => capture('git', ['apply', '--check', join(root, 'test/mutants', file)]).code !== 0)

const missing = []
for (const [id, { later, tests }] of known) {
  if (tests.length === 0 && !later) missing.push(id)
  console.log(`${id.padEnd(4)} ${tests.length > 0 ? summary(tests) : later ? 'later' : 'NO TEST'}`)
}
const built = [...known.values()].filter(({ tests }) => tests.length > 0).length
console.log(
  `\n${known.size} invariants, ${built} with tests, ${known.size - built - missing.length} later, ${missing.length} missing`,
)
for (const line of unknown) console.error(`a test names an id that is not in the list: ${line}`)
if (stale.length > 0) console.error(`mutants that do not apply any more: ${stale.join(', ')}`)
if (missing.length > 0) console.error(`no test names ${missing.join(', ')}`)
process.exit(unknown.length > 0 || stale.length > 0 || missing.length > 0 || known.size === 0 ? 1 : 0)

function testFiles() {
  return capture('git', ['ls-files', '-co', '--exclude-standard', 'native/test', 'test'])
    .stdout.split('\n')
    .filter((file) => /\.(cc|ts)$/.test(file))
}

function summary(tests) {
  const files = [...new Set(tests)]
  return `${tests.length} in ${files.slice(0, 3).join(', ')}${files.length > 3 ? ', …' : ''}`
}
