// npm test: every check there is, in order of what fails fastest; ends with what failed, and one line "N passed, N failed".
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { countBoxSuites, runAsOrdinaryUser } from './box-suites.mjs'
import { missingForMachines } from './machines-here.mjs'
import { bin, root } from './shell.mjs'
import { failuresOf } from './vitest-verdict.mjs'

const script = (name, ...args) => [process.execPath, join(root, 'scripts', name), ...args]
const vitestReport = join(root, 'build/vitest.json')
mkdirSync(join(root, 'build'), { recursive: true })

// [title, command, how to count]; a step that is not counted by its output is one test.
const steps = [
  ['format', script('format.mjs'), one],
  ['invariants', script('invariants.mjs'), one],
  ['lint', script('lint.mjs'), one],
  ['native tests under ASan and UBSan', script('native-tests.mjs', 'asan'), doctest],
  ['native tests under TSan', script('native-tests.mjs', 'tsan'), doctest],
  ['fuzz targets', script('fuzz.mjs', '10'), one],
  [
    'SDK',
    [
      process.execPath,
      bin('vitest', 'vitest.mjs'),
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${vitestReport}`,
    ],
    vitest,
  ],
  ['public types', [process.execPath, bin('tsd', 'dist/cli.js')], one],
]

const total = { passed: 0, failed: 0 }
// [title, a text for each failure]
const failures = []
for (const [title, [program, ...args], count] of steps) {
  console.log(`\n== ${title}`)
  const started = performance.now()
  const { status, signal, error, stdout, stderr } = spawnSync(program, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 256 * 2 ** 20,
  })
  process.stdout.write(stdout ?? '')
  process.stderr.write(stderr ?? '')
  const counted = count(status ?? 1, stdout ?? '', stderr ?? '')
  // A crash may leave a summary that says all is well, or none at all.
  if (status !== 0 && counted.failed === 0) {
    counted.failed = 1
    counted.told = [
      `ended with ${signal ?? status}${error ? `: ${error.message}` : ''}, and no test said why\n${endOf(stderr ?? '')}`,
    ]
  }
  total.passed += counted.passed
  total.failed += counted.failed
  if (counted.failed > 0) failures.push([title, counted.told])
  console.log(
    `-- ${title}: ${counted.passed} passed, ${counted.failed} failed (${((performance.now() - started) / 1000).toFixed(0)} s)`,
  )
}
boxSuitesTwice(await missingForMachines())
for (const [title, told] of failures) {
  console.log(`\n== failed: ${title}`)
  for (const text of told) console.log(`\n${text.split('\n').slice(0, 40).join('\n')}`)
}
console.log(`\n${total.passed} passed, ${total.failed} failed`)
process.exit(total.failed > 0 ? 1 : 0)

/** The suites of boxes hold for root and for an ordinary user: as root both are run, and a run without either fails.
 * So does one without machines, unless the host lacks what they need. */
function boxSuitesTwice(missingForMachines) {
  const isRoot = process.getuid() === 0
  const here = countBoxSuites(vitestReport, root)
  const runs = [[isRoot ? 'root' : `an ordinary user (uid ${process.getuid()})`, here]]
  if (isRoot) {
    console.log('\n== box suites as an ordinary user')
    const there = runAsOrdinaryUser()
    if (there.code !== 0 && there.failed === 0) {
      there.failed = 1
      there.told = [`ended with ${there.code}, and no test said why\n${endOf(there.stderr)}`]
    }
    total.passed += there.passed
    total.failed += there.failed
    if (there.failed > 0) failures.push(['box suites as an ordinary user', there.told])
    runs.push([`an ordinary user (uid ${there.uid})`, there])
  }
  console.log('')
  for (const [who, { passed, failed, skipped, overPassed, overFramed, inMachines }] of runs) {
    const machines = missingForMachines
      ? `in machines none, for this host lacks ${missingForMachines}`
      : `in machines ${inMachines}`
    const transports = `streams passed ${overPassed}, framed ${overFramed}, ${machines}`
    console.log(`box suites as ${who}: ${passed} passed, ${failed} failed, ${skipped} skipped (${transports})`)
    if (overPassed > 0 && overFramed > 0 && (inMachines > 0 || missingForMachines)) continue
    total.failed++
    failures.push([`box suites as ${who}`, ['none ran over one of the transports']])
  }
}

function one(code, stdout, stderr) {
  if (code === 0) return { passed: 1, failed: 0, told: [] }
  return { passed: 0, failed: 1, told: [`ended with ${code}\n${endOf(stdout + stderr)}`] }
}

function endOf(text) {
  return text.trimEnd().split('\n').slice(-30).join('\n')
}

/** One summary for each shard; a failed case is printed between lines of "=". */
function doctest(code, text, stderr) {
  const summaries = [...text.matchAll(/test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed/g)]
  if (summaries.length === 0) return one(code || 1, text, stderr)
  const sum = (group) => summaries.reduce((total, match) => total + Number(match[group]), 0)
  const told = text.split(/^={20,}$/m).filter((block) => /^TEST CASE:/m.test(block) && /ERROR:/.test(block))
  return { passed: sum(1), failed: sum(2), told: told.map((block) => block.trim()) }
}

function vitest(code, text, stderr) {
  try {
    const report = JSON.parse(readFileSync(vitestReport, 'utf8'))
    const told = failuresOf(report)
    return { passed: report.numPassedTests, failed: told.length, told }
  } catch {
    return one(code || 1, text, stderr)
  }
}
