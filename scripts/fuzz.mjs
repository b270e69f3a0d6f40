// Runs every fuzz target that the build made, as many at once as there are processors, first over its corpus, then for a
// while: fuzz.mjs [seconds, default 10] [target]
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { build } from './build.mjs'
import { root } from './shell.mjs'

const seconds = Number(process.argv[2] ?? 10)
const only = process.argv[3]
build('fuzz')

const targets = readdirSync(join(root, 'native/fuzz'))
  .filter((file) => file.endsWith('_fuzz.cc'))
  .map((file) => file.slice(0, -'.cc'.length))
  .filter((target) => !only || target === only)
const waiting = [...targets]
let failed = 0
await Promise.all(cpus().map(runWaiting))
console.log(`fuzz targets: ${targets.length} | ${targets.length - failed} passed | ${failed} failed`)
process.exit(failed > 0 || targets.length === 0 ? 1 : 0)

async function runWaiting() {
  for (let target = waiting.shift(); target; target = waiting.shift()) if (!(await passes(target))) failed++
}

async function passes(target) {
  const seeds = join(root, 'native/fuzz/corpus', target)
  // What a run finds goes to a corpus of its own: the committed seeds change only on purpose.
  const grown = join(root, 'build/fuzz/grown', target)
  mkdirSync(grown, { recursive: true })
  if (!existsSync(seeds)) {
    console.error(`${target}: has no corpus in native/fuzz/corpus/${target}`)
    return false
  }
  const { code, stdout, stderr } = await run(join(root, 'build/fuzz', target), [
    `-max_total_time=${seconds}`,
    '-rss_limit_mb=2048',
    '-timeout=25',
    '-print_final_stats=1',
    `-artifact_prefix=${join(root, 'build/fuzz/')}${target}-`,
    grown,
    seeds,
  ])
  const deepest = /deepest assertion ran (\d+) times/.exec(stdout + stderr)?.[1]
  const runs = /number_of_executed_units: (\d+)/.exec(stderr)?.[1]
  console.log(
    `${target}: ${runs ?? '?'} runs in ${seconds} s, deepest assertion ran ${deepest ?? 'an unknown number of'} times`,
  )
  if (code !== 0) console.error(stderr.split('\n').slice(-60).join('\n'))
  return code === 0 && Number(deepest) > 0
}

function run(program, args) {
  return new Promise((resolve) => {
    execFile(program, args, { maxBuffer: 256 * 2 ** 20 }, (error, stdout, stderr) =>
      resolve({ code: error ? 1 : 0, stdout, stderr }),
    )
  })
}
