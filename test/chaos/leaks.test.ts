// Long use leaves nothing behind: counted before and after, by the kernel's tables. SLUICEBOX_LONG=1 runs the full numbers.
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import type { Runtime } from '../../lib/index.js'
import { eventually, runtimeOver, streams } from '../support/boxes.js'
import { allProcesses, cgroupsNamed, idsIn, mountsHere } from '../support/traces.js'

const isLong = process.env.SLUICEBOX_LONG === '1'
const CYCLES = isLong ? 1000 : 200
const EXECUTIONS = isLong ? 10_000 : 2000
const AT_ONCE = 8
/** A leak takes as much every time; what the heap and its arenas grow by they grow by once, or give back. */
const RSS_SLACK = 8 * 2 ** 20
const RSS_ROUNDS = 5

/** Everything that must return to what it was, as one value. */
function standing(runtime: Runtime, cgroupsBefore: ReadonlySet<string>) {
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    children: allProcesses().filter(({ ppid }) => ppid === process.pid).length,
    mounts: mountsHere().length,
    cgroups: cgroupsNamed('sluicebox-').filter((path) => !cgroupsBefore.has(path) && isOurs(path)).length,
    boxes: idsIn(runtime.home).length,
    files: readdirSync(tmpdir()).filter((name) => name.startsWith('sluicebox-') && ours.has(name)).length,
    handles: runtime.stats().handles.live,
  }
}
/** Other test files run beside this one. */
const made = new Set<string>()
const isOurs = (path: string): boolean => made.has(path.slice(path.lastIndexOf('sluicebox-') + 'sluicebox-'.length))
const ours = new Set(readdirSync(tmpdir()))

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
const rss = (): number => {
  collect()
  return process.memoryUsage.rss()
}

async function atOnce(count: number, work: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (next < count) await work(next++)
    }),
  )
}

async function expectUnchanged(runtime: Runtime, work: (count: number) => Promise<void>, count: number): Promise<void> {
  const cgroupsBefore = new Set(cgroupsNamed('sluicebox-'))
  await work(Math.min(count, 1000))
  const before = standing(runtime, cgroupsBefore)
  const growth: number[] = []
  // From the end of one round to the end of the next: what a collection lets go of, it lets go of by and by.
  let last = rss()
  while (growth.length < RSS_ROUNDS && !growth.some((bytes) => bytes < RSS_SLACK)) {
    const start = performance.now()
    await work(count)
    const ms = performance.now() - start
    await eventually(
      async () => {
        await new Promise((resolve) => setImmediate(resolve))
        return standing(runtime, cgroupsBefore)
      },
      (now) => Object.entries(before).every(([key, value]) => now[key as keyof typeof now] <= value),
      `all to return to ${JSON.stringify(before)}`,
    )
    const now = rss()
    const grown = now - last
    last = now
    growth.push(grown)
    console.log(`${count} in ${(ms / 1000).toFixed(1)} s; RSS grew by ${(grown / 2 ** 20).toFixed(1)} MiB`)
  }
  expect(Math.min(...growth)).toBeLessThan(RSS_SLACK)
  const { claimed, finalized } = runtime.stats().handles
  expect(claimed).toBe(finalized)
}

test(`B29, S33: ${CYCLES} cycles of create, exec and remove leave nothing behind`, { timeout: 1_800_000 }, async () => {
  const runtime = runtimeOver('passed')
  const cycle = async (n: number) => {
    const box = await runtime.create(n % 4 === 0 ? { name: `box-${n}` } : {})
    made.add(box.id)
    expect((await box.run(['echo', `${n}`])).stdout).toBe(`${n}`)
    await box.remove({ force: true })
  }
  await expectUnchanged(runtime, (count) => atOnce(count, cycle), CYCLES)
})

test.each(streams)(
  `B29: ${EXECUTIONS} executions over %s streams leave nothing behind`,
  { timeout: 1_800_000 },
  async (transport) => {
    const runtime = runtimeOver(transport)
    const box = await runtime.create()
    made.add(box.id)
    const execution = async (n: number) => {
      if (n % 10 !== 0) return expect((await box.run(['true'])).ok).toBe(true)
      // Also those that are let go before they ended, and that nobody read.
      const unread = await box.exec(['sh', '-c', 'echo unread; exec sleep 1000'])
      await unread[Symbol.asyncDispose]()
    }
    await expectUnchanged(runtime, (count) => atOnce(count, execution), EXECUTIONS)
    expect((await box.shell('ls /proc | grep -c "^[0-9]"')).stdout).toMatch(/^[1-6]$/)
  },
)
