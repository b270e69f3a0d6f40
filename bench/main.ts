// npm run bench -- queue|rebase|images|exec|start|vm [--json]: every figure against a peer in the same run.
import { parseArgs } from 'node:util'
import { exec } from './exec.js'
import { images } from './images.js'
import type { Figure, Spread } from './measure.js'
import { queue } from './queue.js'
import { rebase } from './rebase.js'
import { start } from './start.js'
import { machine } from './support/machine.js'
import { vm } from './vm.js'

export type Suite = (rounds: number) => Promise<Figure[]>
const suites: Record<string, Suite> = { queue, rebase, images, exec, start, vm }
const ROUNDS = 7

const { positionals, values } = parseArgs({ allowPositionals: true, options: { json: { type: 'boolean' } } })
const [name] = positionals
const suite = suites[name ?? '']
if (positionals.length !== 1 || !suite) {
  console.error(`usage: npm run bench -- ${Object.keys(suites).join('|')} [--json]`)
  process.exit(2)
}

const host = machine()
const figures = await suite(ROUNDS)
if (values.json) console.log(JSON.stringify({ suite: name, machine: host, rounds: ROUNDS, figures }, null, 2))
else print()

function print(): void {
  console.log(
    Object.entries(host)
      .map(([key, value]) => `${key}: ${value}`)
      .join('\n'),
  )
  console.log(`${ROUNDS} rounds, medians; p95 in parentheses\n`)
  for (const { name, value, unit, goal, met, ours, theirs, peer } of figures) {
    const sides = theirs ? `ours ${show(ours)}, theirs ${show(theirs)}` : `ours ${show(ours)}`
    console.log(`${met ? 'met   ' : 'MISSED'} ${name} ${round(value)} ${unit}, goal ${goal}: ${sides}; peer: ${peer}`)
  }
}

function show({ median, p95, unit }: Spread): string {
  return `${round(median)} (${round(p95)}) ${unit}`
}

function round(value: number): number {
  return Number(value.toPrecision(3))
}
