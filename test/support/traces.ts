// What the kernel and the home show of a box, seen from outside: processes, mounts, cgroups, files.
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from './boxes.js'

export interface SeenProcess {
  readonly pid: number
  /** In clock ticks since boot: with the pid it names one process for good. */
  readonly start: string
  readonly ppid: number
  readonly state: string
  readonly name: string
}

/** undefined: it is gone. */
export function processOf(pid: number | string): SeenProcess | undefined {
  const text = textOf(`/proc/${pid}/stat`)
  // The name may hold spaces and parentheses.
  const parts = /^(\d+) \((.*)\) (.+)$/s.exec(text)
  if (!parts) return undefined
  const fields = (parts[3] as string).split(' ')
  return {
    pid: Number(parts[1]),
    start: fields[19] as string,
    ppid: Number(fields[1]),
    state: fields[0] as string,
    name: parts[2] as string,
  }
}

export const allProcesses = (): SeenProcess[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(processOf)
    .filter((process) => process !== undefined)

export function descendantsOf(pid: number, all = allProcesses()): SeenProcess[] {
  const children = all.filter(({ ppid }) => ppid === pid)
  return children.flatMap((child) => [child, ...descendantsOf(child.pid, all)])
}

const isSame = ({ pid, start }: SeenProcess): boolean => {
  const now = processOf(pid)
  // One that ended and waits for a parent which is not ours to be reaped by is gone.
  return now?.start === start && (now.state !== 'Z' || now.ppid === process.pid)
}

/** Its keeper, by the argument that names the box. */
export function keeperOf(id: string, all = allProcesses()): SeenProcess | undefined {
  return all.find(({ pid }) => textOf(`/proc/${pid}/cmdline`) === `sluicebox-keeper\0${id}\0`)
}

/** Of a keeper that was started ahead of need, and of what it began: nothing of a box yet. */
export const isSpare = (pid: number): boolean => textOf(`/proc/${pid}/cmdline`).startsWith('sluicebox-keeper\0spare-')

export const cgroupsNamed = (part: string, folder = '/sys/fs/cgroup'): string[] =>
  foldersIn(folder).flatMap((name) => {
    const path = join(folder, name)
    return name.includes(part) ? [path] : cgroupsNamed(part, path)
  })

/** None where there is no such folder, or none any more. */
function foldersIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
  } catch {
    return []
  }
}

/** Mounts that this process sees, but for the disks that tests of images mount on folders of theirs meanwhile. */
export const mountsHere = (): string[] =>
  textOf('/proc/self/mountinfo')
    .split('\n')
    .filter((line) => !/\/sluicebox-test-[^/ ]+ /.test(line))

/** Mounts that this process sees, and that are a box's. */
export const mountsNamed = (part: string): string[] =>
  textOf('/proc/self/mountinfo')
    .split('\n')
    .filter((line) => line.includes(part) && !line.includes('cgroup'))

/** The box's processes as they are now: its keeper, PID 1, and all below. */
export interface Trace {
  readonly id: string
  readonly keeper: SeenProcess
  readonly first: SeenProcess
  readonly processes: readonly SeenProcess[]
  /** Of the box's pid namespace. */
  readonly namespace: string
  /** In the environment of every execution, where one was given. */
  readonly mark?: string
}

export function traceOf(id: string, mark?: string, all = allProcesses()): Trace {
  const keeper = keeperOf(id, all)
  if (!keeper) throw new Error(`box ${id} has no keeper`)
  const below = descendantsOf(keeper.pid, all)
  const first = below[0]
  if (!first) throw new Error(`the keeper of box ${id} has no child`)
  return {
    id,
    keeper,
    first,
    processes: [keeper, ...below],
    namespace: readlinkSync(`/proc/${first.pid}/ns/pid`),
    mark,
  }
}

/** Whatever is left of it by name; nothing is an empty list. */
export function leftOf(
  { id, processes = [], mark }: Partial<Trace> & { readonly id: string },
  home?: string,
): string[] {
  const marked = mark ? allProcesses().filter(({ pid }) => textOf(`/proc/${pid}/environ`).includes(mark)) : []
  const keeper = keeperOf(id)
  const alive = [...processes.filter(isSame), ...marked, ...(keeper ? [keeper] : [])]
  const folder = home === undefined ? undefined : join(home, 'boxes', id)
  return [
    ...alive.map(({ pid, name, state }) => `process ${pid} ${name} ${state}`),
    ...cgroupsNamed(`sluicebox-${id}`).map((path) => `cgroup ${path}`),
    ...mountsNamed(id).map((line) => `mount ${line}`),
    ...(folder !== undefined && existsSync(folder) ? [`directory ${folder}: ${readdirSync(folder).join(' ')}`] : []),
  ]
}

export const gone = (trace: Partial<Trace> & { readonly id: string }, home?: string) =>
  eventually(
    async () => {
      // Lets this process reap its children.
      await new Promise((resolve) => setImmediate(resolve))
      return leftOf(trace, home)
    },
    (left) => left.length === 0,
    `box ${trace.id} to be gone`,
  )

/** Ids of the boxes that have a directory in the home. */
export const idsIn = (home: string): string[] =>
  existsSync(join(home, 'boxes')) ? readdirSync(join(home, 'boxes')) : []

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
