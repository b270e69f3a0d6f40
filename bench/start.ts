// The figures of starting: a whole box's life and an execution in a running box, against spawning bwrap and the program itself.
import { spawn } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Box, type BoxCreateOptions, Runtime } from 'sluicebox'
import { alternate, cost, type Figure, type Goal, percentile, spread } from './measure.js'

/** Starts in one round; a round's time is their median, for one start is at the mercy of the scheduler. */
const STARTS = 20
const none = Number.POSITIVE_INFINITY
const UNLIMITED: BoxCreateOptions = { memory: none, vcpus: none, maxProcesses: none }

export async function start(rounds: number): Promise<Figure[]> {
  const home = await mkdtemp(join(tmpdir(), 'sluicebox-bench-'))
  try {
    await using runtime = new Runtime({ home })
    await using box = await runtime.create()
    const unit = 'ratio'
    const bwrap = 'a spawn of bwrap … true with the same namespaces and mounts'
    const life = async (options: BoxCreateOptions) => {
      await using made = await runtime.create(options)
      await succeeds(made)
    }
    return [
      await compare(
        rounds,
        { name: 'start.namespace', unit, peer: bwrap, goal: '<= 0.6' },
        () => life(UNLIMITED),
        sandboxed,
      ),
      await compare(
        rounds,
        { name: 'start.namespace_limited', unit, peer: bwrap, goal: 'told' },
        () => life({ memory: '256M', vcpus: 1, maxProcesses: 64 }),
        sandboxed,
      ),
      await compare(
        rounds,
        { name: 'start.warm_exec', unit, peer: 'child_process.spawn of the same program', goal: '<= 1' },
        () => succeeds(box),
        () => ended('true', []),
      ),
    ]
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
}

async function compare(
  rounds: number,
  goal: Goal,
  ours: () => Promise<void>,
  theirs: () => Promise<void>,
): Promise<Figure> {
  const median = async (work: () => Promise<void>) => {
    const times: number[] = []
    for (let i = 0; i < STARTS; i++) {
      const from = performance.now()
      await work()
      times.push(performance.now() - from)
    }
    return percentile(times, 0.5)
  }
  await median(ours)
  await median(theirs)
  const times = await alternate(
    rounds,
    () => median(ours),
    () => median(theirs),
  )
  return cost(goal, spread(times.ours, 'ms'), spread(times.theirs, 'ms'))
}

async function succeeds(box: Box): Promise<void> {
  const { exitCode } = await box.run(['true'])
  if (exitCode !== 0) throw new Error(`true ended with ${exitCode}`)
}

/** The walls of a box as near as bwrap comes: it has neither the filter of system calls nor landlock. */
const sandboxed = () => {
  const binds = ['/usr', '/opt'].filter(existsSync).flatMap((path) => ['--ro-bind', path, path])
  const links = ['bin', 'sbin', 'lib', 'lib64'].flatMap((name) => ['--symlink', `usr/${name}`, `/${name}`])
  const etc = ['ld.so.cache', 'nsswitch.conf', 'alternatives', 'ssl/certs']
    .map((name) => `/etc/${name}`)
    .filter(existsSync)
    .flatMap((path) => ['--ro-bind', path, path])
  const fresh = ['--proc', '/proc', '--dev', '/dev', '--tmpfs', '/tmp', '--dir', '/root', '--dir', '/home']
  return ended('bwrap', ['--unshare-all', '--cap-drop', 'ALL', ...binds, ...links, ...etc, ...fresh, 'true'])
}

function ended(program: string, args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    child.stderr.on('data', (chunk: Buffer) => {
      text += chunk
    })
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`${program} ended with ${code}: ${text}`))))
  })
}
