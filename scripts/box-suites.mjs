// The suites of boxes once more as an ordinary user: what holds for root holds without its rights. Needs root, to become another.
import {
  cpSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, sep } from 'node:path'
import { bin, capture, root } from './shell.mjs'
import { failuresOf } from './vitest-verdict.mjs'

/** Files under these are the suites that run twice. */
export const boxSuites = [
  'test/integration/exec/',
  'test/integration/boxes/',
  'test/integration/machines/',
  'test/security/',
  'test/chaos/leash.test.ts',
  'test/chaos/machines.test.ts',
]
// In these every test is of a machine; elsewhere those of the table's column.
const machineSuites = ['test/integration/machines/', 'test/security/machine.test.ts', 'test/chaos/machines.test.ts']

const FIRST_UID = 50_000

/** Passed and failed tests of the box suites in a report of vitest, each transport's passed ones too. */
export function countBoxSuites(reportFile, folder) {
  const counted = { passed: 0, failed: 0, skipped: 0, overPassed: 0, overFramed: 0, inMachines: 0 }
  if (!existsSync(reportFile)) return { ...counted, failed: 1 }
  for (const { name, status, assertionResults } of JSON.parse(readFileSync(reportFile, 'utf8')).testResults) {
    const file = name.slice(folder.length + 1)
    if (!boxSuites.some((suite) => file.startsWith(suite))) continue
    const of = (wanted) => assertionResults.filter((each) => each.status === wanted)
    counted.passed += of('passed').length
    // A pending one was cut off by the end of its file's process.
    counted.failed += of('failed').length + of('pending').length
    counted.skipped += of('skipped').length
    for (const { ancestorTitles } of of('passed')) {
      if (ancestorTitles.includes('passed')) counted.overPassed++
      if (ancestorTitles.includes('framed')) counted.overFramed++
      if (ancestorTitles.includes('machine') || machineSuites.some((suite) => file.startsWith(suite)))
        counted.inMachines++
    }
    // A file that did not load has no test to say so.
    if (status === 'failed' && of('failed').length === 0) counted.failed++
  }
  return counted
}

function failuresIn(reportFile) {
  return existsSync(reportFile) ? failuresOf(JSON.parse(readFileSync(reportFile, 'utf8'))) : ['it left no report']
}

/** Runs the box suites as a user that exists nowhere else; gives its uid, the exit code and the counts. */
export function runAsOrdinaryUser() {
  const uid = freeUid()
  const place = mkdtempSync(join(tmpdir(), 'sluicebox-user-'))
  try {
    const folder = join(place, 'checkout')
    copyCheckout(folder)
    for (const name of ['home', 'tmp']) mkdirSync(join(place, name), { mode: 0o700 })
    giveAway(place, uid)
    const id = String(uid)
    const { code, stdout, stderr } = capture(
      'setpriv',
      [
        ...['--reuid', id, '--regid', id, '--clear-groups', '--no-new-privs', process.execPath],
        bin('vitest', 'vitest.mjs').replace(root, folder),
        ...['run', '--reporter=default', '--reporter=json', `--outputFile.json=${join(place, 'tmp/report.json')}`],
        ...boxSuites,
      ],
      {
        cwd: folder,
        env: {
          PATH: process.env.PATH,
          HOME: join(place, 'home'),
          TMPDIR: join(place, 'tmp'),
          ...(process.env.SLUICEBOX_LONG && { SLUICEBOX_LONG: process.env.SLUICEBOX_LONG }),
        },
      },
    )
    process.stdout.write(stdout)
    process.stderr.write(stderr)
    const report = join(place, 'tmp/report.json')
    return { uid, code, stderr, ...countBoxSuites(report, folder), told: failuresIn(report) }
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

/** Of nobody that the host knows, and of no process. */
function freeUid() {
  const known = new Set(
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => Number(line.split(':')[2])),
  )
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      known.add(Number(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]))
    } catch {
      // It ended meanwhile.
    }
  }
  let uid = FIRST_UID + Math.floor(Math.random() * 9000)
  while (known.has(uid)) uid++
  return uid
}

/** What the suites need: not the checkout itself, which another user may not even see. */
function copyCheckout(folder) {
  mkdirSync(join(folder, 'build/Release'), { recursive: true })
  const options = { recursive: true, preserveTimestamps: true, verbatimSymlinks: true }
  for (const name of [
    ...['lib', 'test', 'dist', 'examples', 'package.json', 'vitest.config.ts', 'tsconfig.json', 'build/tools'],
    ...['scripts/shell.mjs', 'scripts/machines-here.mjs'],
    ...['sluicebox.node', 'sluicebox_test.node', 'sluicebox-agent', 'sluicebox-keeper'].map(
      (it) => `build/Release/${it}`,
    ),
  ])
    cpSync(join(root, name), join(folder, name), options)
  // Where the kernel of machines is not one of the host's own.
  if (existsSync(join(root, 'build/guest'))) cpSync(join(root, 'build/guest'), join(folder, 'build/guest'), options)
  // Packages need not be the user's own where it can read them. Their directory is: vite writes into it.
  mkdirSync(join(folder, 'node_modules'))
  for (const name of readdirSync(join(root, 'node_modules'))) {
    if (name.startsWith('.vite')) continue
    const [from, to] = [join(root, 'node_modules', name), join(folder, 'node_modules', name)]
    if (openToAll(from)) symlinkSync(from, to)
    else cpSync(from, to, options)
  }
}

/** Whether others can get there; what lies in a package is as open as its directory. */
function openToAll(path) {
  const parts = path.split(sep)
  return parts.every((_, n) => {
    const above = parts.slice(0, n + 1).join(sep) || sep
    return (statSync(above).mode & 0o005) === 0o005
  })
}

function giveAway(path, uid) {
  lchownSync(path, uid, uid)
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) giveAway(join(path, entry.name), uid)
    else lchownSync(join(path, entry.name), uid, uid)
  }
}
