// npm run test:long: what `npm test` tries in part, tried in full: every way in which a write may be lost, longer random
// sequences, more kills and clones, a minute of each fuzz target. It builds what it needs, and takes hours: test-long.mjs
// native, fuzz or sdk tries one of the three.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { bin, root } from './shell.mjs'

const steps = [
  ['native', join(root, 'scripts/native-tests.mjs'), 'asan'],
  ['fuzz', join(root, 'scripts/fuzz.mjs'), '60'],
  [
    'sdk',
    bin('vitest', 'vitest.mjs'),
    'run',
    'test/chaos',
    'test/integration/machines/clones.test.ts',
    'test/integration/cli/sequences.test.ts',
  ],
]

const env = { ...process.env, SLUICEBOX_LONG: '1' }
const chosen = process.argv.slice(2)
const wanted = steps.filter(([title]) => chosen.length === 0 || chosen.includes(title))
const failures = wanted.filter(([title, ...args]) => {
  console.log(`\n== ${title}`)
  return spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit', env }).status !== 0
})
console.log(failures.length > 0 ? `\nfailed: ${failures.map(([title]) => title).join('; ')}` : '\nall passed')
process.exit(failures.length > 0 || wanted.length === 0 ? 1 : 0)
