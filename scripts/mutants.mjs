// Breaks one rule at a time (test/mutants/ID.patch) in a copy of the tree, builds, and shows that the test naming ID fails.
// A patch of lib/, of the addon or of the programs of boxes is run against vitest; any other under native/ against the native tests. mutants.mjs [ID …]
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bin, capture, root } from './shell.mjs'
import { verdictOf } from './vitest-verdict.mjs'

const chosen = process.argv.slice(2)
const ids = readdirSync(join(root, 'test/mutants'))
  .filter((file) => file.endsWith('.patch'))
  .map((file) => file.slice(0, -'.patch'.length))
  .filter((id) => chosen.length === 0 || chosen.includes(id))
  .sort()

const folder = mkdtempSync(join(tmpdir(), 'sluicebox-mutants-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
copyTree()

// All sound runs first: they share one build, and those of vitest one run.
const ofSdk = ids.filter((id) => suiteOf(id) === sdkSuite).map(ruleOf)
const soundSdk = ofSdk.length > 0 ? sdkSuites(ofSdk) : new Map()
const sound = new Map(ids.map((id) => [id, soundSdk.get(ruleOf(id)) ?? suiteOf(id)(ruleOf(id))]))
let caught = 0
for (const id of ids) {
  const verdict = tryMutant(id)
  console.log(`${id.padEnd(6)} ${verdict}`)
  if (verdict.startsWith('caught')) caught++
}
console.log(`\n${ids.length} mutants, ${caught} caught, ${ids.length - caught} missed`)
process.exit(caught === ids.length && ids.length > 0 ? 0 : 1)

function copyTree() {
  const files = capture('git', ['ls-files', '-co', '--exclude-standard']).stdout.split('\n').filter(Boolean)
  for (const file of files) {
    mkdirSync(join(folder, file, '..'), { recursive: true })
    cpSync(join(root, file), join(folder, file))
  }
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  // The kernel of virtual machines, where the addon looks for it.
  const kernel = join('build', 'guest')
  if (existsSync(join(root, kernel))) cpSync(join(root, kernel), join(folder, kernel), { recursive: true })
}

function tryMutant(id) {
  if (sound.get(id) !== 'passed') return `MISSED: its test does not pass without the mutant (${sound.get(id)})`
  const applied = capture('git', ['apply', '--whitespace=nowarn', patchOf(id)], { cwd: folder })
  if (applied.code !== 0) return `MISSED: the patch does not apply: ${applied.stderr.trim()}`
  const broken = suiteOf(id)(ruleOf(id))
  endLeftovers()
  capture('git', ['apply', '-R', '--whitespace=nowarn', patchOf(id)], { cwd: folder })
  if (broken !== 'failed') return `MISSED: ${broken}`
  return `caught by ${suiteOf(id) === sdkSuite ? 'vitest' : 'native_tests'} "${ruleOf(id)}"`
}

/** A broken leash holds nobody: what a mutant's boxes left behind spins, or waits, for good. */
function endLeftovers() {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (readlinkSync(`/proc/${pid}/exe`).startsWith(`${folder}/build/`)) process.kill(Number(pid), 'SIGKILL')
    } catch {
      // It has ended, or is none of ours.
    }
  }
}

/** H2-late.patch is a second mutant of H2. */
function ruleOf(id) {
  return id.replace(/-.*/, '')
}

function suiteOf(id) {
  return /^\+\+\+ b\/(lib\/|native\/(addon|agent|box|keeper)\/|native\/CMakeLists\.txt)/m.test(
    readFileSync(patchOf(id), 'utf8'),
  )
    ? sdkSuite
    : nativeSuite
}

function patchOf(id) {
  return join(root, 'test/mutants', `${id}.patch`)
}

function nativeSuite(rule) {
  const out = join(folder, 'build/mutants')
  const configured = capture(
    'cmake',
    [
      '-S',
      'native',
      '-B',
      out,
      '-G',
      'Ninja',
      '-DCMAKE_BUILD_TYPE=Release',
      '-DSLUICEBOX_TESTS=ON',
      '-DSLUICEBOX_UNITY=OFF',
    ],
    { cwd: folder },
  )
  if (configured.code !== 0) return `configure failed: ${configured.stderr}`
  const built = capture('cmake', ['--build', out], { cwd: folder })
  if (built.code !== 0) return `does not build: ${built.stdout.slice(-2000)}`
  // "Q1:" or "Q1," but not "Q12:".
  const { code, stdout } = capture(join(out, 'native_tests'), [`--test-case=${rule}:*,${rule}\\,*,* ${rule}:*`], {
    cwd: folder,
    timeout: 600_000,
  })
  const ran = Number(/test cases:\s+(\d+)/.exec(stdout)?.[1] ?? 0)
  if (ran === 0 && code === 0) return 'no native test names it'
  return code === 0 ? 'passed' : 'failed'
}

/** One test that fails is enough. What a mutant never lets come is not waited for as long as on a slow machine. */
function sdkSuite(rule) {
  const options = ['--bail=1', '--testTimeout=120000', '--hookTimeout=120000']
  return sdkSuites([rule], options, 300_000, { SLUICEBOX_TEST_DEADLINE_MS: '45000' }).get(rule)
}

/** What each rule's tests come to. */
function sdkSuites(rules, options = [], timeout = 1_800_000, more = {}) {
  const all = (verdict) => new Map(rules.map((rule) => [rule, verdict]))
  const args = [
    'compile',
    '-d',
    'native',
    '-B',
    'Release',
    '-O',
    'build/Release',
    '-l',
    'error',
    '--CDSLUICEBOX_UNITY=OFF',
  ]
  const built = capture(process.execPath, [bin('cmake-js', 'bin/cmake-js'), ...args], { cwd: folder })
  if (built.code !== 0) return all(`does not build: ${built.stderr.slice(-2000)}`)
  const report = join(folder, 'build/vitest.json')
  rmSync(report, { force: true })
  const { code, stdout, stderr } = capture(
    process.execPath,
    [
      bin('vitest', 'vitest.mjs'),
      'run',
      '--reporter=json',
      `--outputFile=${report}`,
      ...options,
      '-t',
      `^(.* )?([QHXSBIP]\\d+, )*(${rules.join('|')})[:,]`,
    ],
    {
      cwd: folder,
      timeout,
      env: { ...process.env, ...more, SLUICEBOX_ADDON: join(folder, 'build/Release/sluicebox_test.node') },
    },
  )
  if (!existsSync(report)) return all(`vitest made no report (${code}): ${(stderr || stdout).slice(-2000)}`)
  const said = JSON.parse(readFileSync(report, 'utf8'))
  // Of several rules one may fail, which says nothing of the others.
  const unexplained = rules.length > 1 && said.numFailedTests > 0 ? 0 : code
  return new Map(rules.map((rule) => [rule, verdictOf(said, rule, unexplained)]))
}
