// The tour's second half: a box that streams a build, ends as it should in every way, and leaves nothing.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Box, type Runtime, SluiceboxError } from 'sluicebox'
import { mib } from './machine.js'
import { say } from './screen.js'

type ExpectSame = (what: string, got: unknown, wanted: unknown) => void

const SOURCES = ['main', 'greet', 'sum'] as const
const BUILD = `set -e
cd /tmp
${SOURCES.map((name) => `echo "CC ${name}.o"; gcc -O2 -c ${name}.c`).join('\n')}
echo "LD hello"; gcc -o hello ${SOURCES.map((name) => `${name}.o`).join(' ')}
./hello`

export async function tourBoxes(runtime: Runtime, expectSame: ExpectSame): Promise<void> {
  const before = await traces(runtime)

  say('8. A box, and a build in it that you see as it happens')
  const box = await runtime.create()
  const { warnings } = await box.info()
  say(`  box ${box.id}: ${warnings.length === 0 ? 'every limit stands' : warnings.join('; ')}`)
  await build(box, expectSame)

  say('9. How programs end')
  await ends(box, expectSame)

  say('10. A person at its terminal')
  const dialog = await box.exec(['sh', '-c', 'printf "name? "; read name; echo "hello $name"'], {
    stdin: 'pipe',
    tty: true,
  })
  await dialog.stdin.write('Ada\n')
  // Its prompt has no end of line: the answer may stand behind it.
  expectSame('it answers', (await dialog.waitForLine(/hello /)).trim().endsWith('hello Ada'), true)
  await dialog.wait()

  say('11. 200 MB for a reader that takes its time')
  await slowReader(box, expectSame)

  say('12. Nothing is left of it')
  await box.remove({ force: true })
  expectSame('no process, mount, cgroup or file of the box', await traces(runtime), before)
}

async function build(box: Box, expectSame: ExpectSame): Promise<void> {
  const files = {
    'main.c': 'void greet(int);\nint sum(int, int);\nint main(void) { greet(sum(40, 2)); return 0; }\n',
    'greet.c': '#include <stdio.h>\nvoid greet(int n) { printf("built in a box: %d\\n", n); }\n',
    'sum.c': 'int sum(int a, int b) { return a + b; }\n',
  }
  for (const [name, text] of Object.entries(files)) await box.run(['tee', `/tmp/${name}`], { input: text })
  const execution = await box.exec(['sh', '-c', BUILD])
  let last = ''
  for await (const { from, line } of execution.lines({ from: 'all' })) {
    say(`  ${from === 'stderr' ? '! ' : '| '}${line}`)
    last = line
  }
  const { exitCode, durationMs } = await execution.wait()
  say(`  took ${durationMs.toFixed(0)} ms`)
  expectSame('the build succeeds', exitCode, 0)
  expectSame('what it built runs', last, 'built in a box: 42')
}

async function ends(box: Box, expectSame: ExpectSame): Promise<void> {
  expectSame('an exit code comes as it is', (await box.run(['sh', '-c', 'exit 42'])).exitCode, 42)
  const sleeper = await box.exec(['sleep', '1000'])
  await sleeper.kill()
  expectSame('a killed program names its signal', (await sleeper.wait()).signal, 'SIGTERM')
  const late = await box.run(['sleep', '1000'], { timeoutMs: 100 }).catch((error: unknown) => error)
  expectSame('a timeout is told apart', SluiceboxError.is(late) && late.code, 'EXEC_TIMEOUT')
  const missing = await box.run(['no-such-program']).catch((error: unknown) => error)
  expectSame('and so is a missing program', SluiceboxError.is(missing) && missing.errno, 'ENOENT')
}

async function slowReader(box: Box, expectSame: ExpectSame): Promise<void> {
  const size = 200 * 1000 * 1000
  const flood = await box.exec(['head', '-c', String(size), '/dev/zero'])
  const from = process.memoryUsage.rss()
  let [bytes, peak] = [0, from]
  for await (const chunk of flood.stdout) {
    bytes += chunk.length
    peak = Math.max(peak, process.memoryUsage.rss())
    // Slower than the program by far: it waits for us.
    if (bytes % 8 < 1) await new Promise((resolve) => setImmediate(resolve))
  }
  expectSame('it ends by itself', (await flood.wait()).exitCode, 0)
  say(`  memory grew by ${((peak - from) / mib).toFixed(0)} MiB at most`)
  expectSame('every byte came', bytes, size)
  expectSame('memory stayed flat', peak - from < 64 * mib, true)
}

/** What the kernel and the disk know of boxes, as far as it is this program's. */
async function traces(runtime: Runtime): Promise<string> {
  const boxes = await readdir(join(runtime.home, 'boxes')).catch(() => [] as string[])
  // The keeper that waits for the next box belongs to none, and goes with the runtime.
  const processes = (await keepers()).filter((name) => !name.startsWith('spare'))
  // Tests that run beside the tour mount disks of their own.
  const isOfTest = (mount: string) => mount.includes('/sluicebox-test-')
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter((mount) => !isOfTest(mount)).length
  const cgroups = (await findCgroups('/sys/fs/cgroup', 3)).filter((name) => boxes.some((id) => name.endsWith(id)))
  return JSON.stringify({ boxes, processes, mounts, cgroups })
}

/** What each keeper of this program keeps: a box's id, or nothing yet. */
export async function keepers(): Promise<string[]> {
  const kept: string[] = []
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
    if (!new RegExp(`^PPid:\\t${process.pid}$`, 'm').test(status)) continue
    const [name, id] = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
    if (name === 'sluicebox-keeper') kept.push(id ?? pid)
  }
  return kept
}

async function findCgroups(folder: string, depth: number): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  const found: string[] = []
  for (const entry of entries) {
    if (!entry.isDirectory()) continue
    if (entry.name.startsWith('sluicebox-')) found.push(entry.name)
    else if (depth > 0) found.push(...(await findCgroups(join(folder, entry.name), depth - 1)))
  }
  return found
}
