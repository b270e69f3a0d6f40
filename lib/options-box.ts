// Every check of an argument of boxes, and what the SDK itself keeps of a box in its record.
import type { ClockLimits } from './box-clock.js'
import type { BoxFilter, BoxState, Isolation, Rootfs } from './box-types.js'
import { SluiceboxError } from './errors.js'
import type { BoxRecord, NativeDisk } from './native.js'
import {
  bad,
  readAbsolute,
  readBoolean,
  readChoice,
  readFunction,
  readInteger,
  readIsolation,
  readOptions,
  readSignal,
  readSize,
  readText,
} from './options.js'
import { type NativeUser, readEnv, readName, readUser } from './options-exec.js'

/** What the SDK applies to each execution, kept in the record as JSON. */
export interface BoxConfig {
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
  readonly user: NativeUser
  readonly labels: Readonly<Record<string, string>>
  readonly clock: ClockLimits
  /** What the box was made from, as the caller named it. */
  readonly snapshot?: SnapshotRoot
}
type SnapshotRoot = Extract<Rootfs, { snapshot: string }>

export interface CreateSettings {
  readonly request: {
    readonly name?: string
    readonly ifExists: 'error' | 'reuse' | 'replace'
    readonly start: boolean
    readonly ephemeral: boolean
    readonly isolation: Isolation
    readonly rootfs: BoxRecord['rootfs'] | ({ readonly kind: 'snapshot' } & SnapshotRoot)
    readonly disks?: readonly NativeDisk[]
    readonly memory: number
    readonly memoryAsked: boolean
    readonly vcpus: number
    readonly vcpusAsked: boolean
    readonly maxProcesses: number
    readonly maxProcessesAsked: boolean
    readonly storage: number
    readonly storageAsked: boolean
    readonly bootTimeoutMs: number
    readonly config: string
  }
}

const MAX_MS = 2 ** 31 - 1
/** QEMU's bus has room for some more. */
const MAX_DISKS = 16
const DEFAULT_MEMORY = 256 * 2 ** 20
const DEFAULT_STORAGE = 2 ** 30
export const createKeys = [
  ...['isolation', 'rootfs', 'name', 'ifExists', 'ephemeral', 'start', 'vcpus', 'memory', 'storage', 'maxProcesses'],
  ...[
    'env',
    'cwd',
    'user',
    'labels',
    'bootTimeoutMs',
    'disks',
    'idleTimeoutMs',
    'onIdle',
    'ttlMs',
    'signal',
    'onProgress',
  ],
]

export function readCreateBox(value: unknown, isolationHere: Isolation): CreateSettings {
  const op = 'create'
  const options = readOptions(op, value, createKeys)
  const isolation = readIsolation(op, options.isolation) ?? isolationHere
  const name = options.name === undefined ? undefined : readName(op, 'name', options.name)
  const ephemeral = readBoolean(op, 'ephemeral', options.ephemeral) ?? name === undefined
  if (name === undefined && !ephemeral)
    throw bad(op, 'ephemeral', 'a name for a box that is to stay', options.ephemeral)
  const ifExists = readChoice(op, 'ifExists', options.ifExists, ['error', 'reuse', 'replace'])
  if (ifExists !== undefined && name === undefined) throw bad(op, 'ifExists', 'a name beside it', ifExists)
  refuseReplacingItsOwn(op, options)
  const root = isolation === 'vm' ? readMachine(op, options) : readNamespaces(op, options)
  const config: BoxConfig = {
    env: readEnv(op, options.env, false) as Record<string, string>,
    cwd: options.cwd === undefined ? '/' : readGuestPath(op, 'cwd', options.cwd),
    user: readUser(op, options.user) ?? { kind: 'root' },
    labels: readLabels(op, options.labels),
    clock: readClock(op, options, isolation),
    ...(root.rootfs.kind === 'snapshot' && { snapshot: asNamed(root.rootfs) }),
  }
  readFunction(op, 'onProgress', options.onProgress)
  return {
    request: {
      ...(name !== undefined && { name }),
      ifExists: ifExists ?? 'error',
      start: readBoolean(op, 'start', options.start) ?? true,
      ephemeral,
      isolation,
      ...root,
      memory: unlimited(options.memory) ?? readAtLeast(op, 'memory', options.memory, 2 ** 20) ?? DEFAULT_MEMORY,
      memoryAsked: options.memory !== undefined,
      vcpus: unlimited(options.vcpus) ?? readInteger(op, 'vcpus', options.vcpus, 1, 1024) ?? 1,
      vcpusAsked: options.vcpus !== undefined,
      maxProcesses:
        unlimited(options.maxProcesses) ?? readInteger(op, 'maxProcesses', options.maxProcesses, 1, 2 ** 22) ?? 512,
      maxProcessesAsked: options.maxProcesses !== undefined,
      storage: readAtLeast(op, 'storage', options.storage, 2 ** 20) ?? DEFAULT_STORAGE,
      storageAsked: options.storage !== undefined,
      bootTimeoutMs: readBootTimeout(op, options.bootTimeoutMs),
      config: JSON.stringify(config),
    },
  }
}

/** What the native side takes for no limit. */
const unlimited = (value: unknown): 0 | undefined => (value === Number.POSITIVE_INFINITY ? 0 : undefined)

export const readBootTimeout = (op: string, value: unknown): number =>
  readInteger(op, 'bootTimeoutMs', value, 1, MAX_MS) ?? 60_000

function readClock(op: string, options: Record<string, unknown>, isolation: Isolation): ClockLimits {
  const idleTimeoutMs = readInteger(op, 'idleTimeoutMs', options.idleTimeoutMs, 1, MAX_MS)
  const onIdle = readChoice(op, 'onIdle', options.onIdle, ['stop', 'pause']) ?? 'stop'
  const ttlMs = readInteger(op, 'ttlMs', options.ttlMs, 1, MAX_MS)
  if (onIdle === 'pause' && isolation !== 'vm') {
    const message = `${op}: onIdle: only a virtual machine can be paused`
    throw new SluiceboxError('UNSUPPORTED', message, { op, hint: `Use onIdle: 'stop', or isolation: 'vm'.` })
  }
  return { onIdle, ...(idleTimeoutMs !== undefined && { idleTimeoutMs }), ...(ttlMs !== undefined && { ttlMs }) }
}

export function readStop(op: string, value: unknown) {
  const options = readOptions(op, value, ['timeoutMs', 'force', 'signal'])
  return {
    timeoutMs: readInteger(op, 'timeoutMs', options.timeoutMs, 0, MAX_MS) ?? 10_000,
    force: readBoolean(op, 'force', options.force) ?? false,
    signal: readSignal(op, options.signal),
  }
}

export function readFilter(value: unknown): BoxFilter & { signal?: AbortSignal } {
  const op = 'list'
  const options = readOptions(op, value, ['labels', 'state', 'name', 'signal'])
  const states = options.state === undefined || Array.isArray(options.state) ? options.state : [options.state]
  return {
    ...(options.labels !== undefined && { labels: readLabels(op, options.labels) }),
    ...(states !== undefined && { state: (states as unknown[]).map((state) => readState(op, state)) }),
    ...(options.name !== undefined && { name: readText(op, 'name', options.name) }),
    signal: readSignal(op, options.signal),
  }
}

export function readState(op: string, value: unknown): BoxState {
  const state = readChoice(op, 'state', value, states)
  if (state === undefined) throw bad(op, 'state', 'a state', undefined)
  return state
}

const states = ['created', 'starting', 'running', 'paused', 'stopping', 'stopped', 'failed', 'removed'] as const

export function parseConfig(record: BoxRecord): BoxConfig {
  return {
    env: {},
    cwd: '/',
    user: { kind: 'root' },
    labels: {},
    clock: { onIdle: 'stop' },
    ...(JSON.parse(record.config || '{}') as object),
  }
}

export function toRootfs(record: BoxRecord): Rootfs {
  const { rootfs, disks } = record
  const { snapshot } = parseConfig(record)
  if (snapshot) return snapshot
  if (rootfs.kind === 'directory') return { directory: rootfs.path }
  const root = disks?.[0]
  if (rootfs.kind === 'host' || !root) return 'host'
  return { disk: root.path, ...(root.format && { format: root.format }), mode: root.mode }
}

function readNamespaces(
  op: string,
  { rootfs, disks }: Record<string, unknown>,
): Pick<CreateSettings['request'], 'rootfs' | 'disks'> {
  if (disks !== undefined) throw bad(op, 'disks', `isolation: 'vm' beside them`, disks)
  return { rootfs: readSharedRoot(op, rootfs) }
}

function readSharedRoot(op: string, value: unknown): BoxRecord['rootfs'] {
  if (value === undefined || value === 'host') return { kind: 'host' }
  if (typeof value !== 'object' || value === null) throw bad(op, 'rootfs', `'host' or { directory }`, value)
  for (const [key, named] of Object.entries(value))
    if (key === 'disk' || key === 'snapshot') throw bad(op, `rootfs.${key}`, `isolation: 'vm' beside it`, named)
  const { directory } = readOptions(op, value, ['directory'], 'rootfs')
  return { kind: 'directory', path: readAbsolute(op, 'rootfs.directory', directory) }
}

/** A box goes with its snapshots, and the one that is replaced goes first. */
function refuseReplacingItsOwn(op: string, { rootfs, ifExists }: Record<string, unknown>): void {
  if (ifExists !== 'replace' || typeof rootfs !== 'object' || rootfs === null || !('snapshot' in rootfs)) return
  const instead = `'error' or 'reuse' beside rootfs.snapshot, which may be the replaced box's own: box.snapshots.restore() goes back to one`
  throw bad(op, 'ifExists', instead, ifExists)
}

/** Given with a snapshot, these would be of another machine than the one that was kept. */
const ofTheSnapshot = ['disks', 'memory', 'vcpus', 'storage', 'maxProcesses']

function readSnapshotRoot(op: string, options: Record<string, unknown>) {
  const { snapshot, memory } = readOptions(op, options.rootfs, ['snapshot', 'memory'], 'rootfs')
  const name = readText(op, 'rootfs.snapshot', snapshot)
  if (name === '') throw bad(op, 'rootfs.snapshot', `an id, or 'BOX/SNAPSHOT'`, snapshot)
  for (const key of ofTheSnapshot)
    if (options[key] !== undefined)
      throw bad(op, key, 'none beside rootfs.snapshot, whose box had its own', options[key])
  const goesOn = readBoolean(op, 'rootfs.memory', memory)
  const rootfs = { kind: 'snapshot' as const, snapshot: name, ...(goesOn !== undefined && { memory: goesOn }) }
  return { rootfs, disks: [] }
}

const asNamed = ({ kind: _, ...named }: { kind: 'snapshot' } & SnapshotRoot): SnapshotRoot => named

function readMachine(
  op: string,
  options: Record<string, unknown>,
): Pick<CreateSettings['request'], 'rootfs' | 'disks'> {
  const { rootfs = 'host', disks, memory, vcpus } = options
  const named = typeof rootfs === 'object' && rootfs !== null ? rootfs : {}
  if ('snapshot' in named) return readSnapshotRoot(op, options)
  for (const [name, value] of Object.entries({ memory, vcpus }))
    if (value === Number.POSITIVE_INFINITY) throw bad(op, name, 'what a machine can have', value)
  if (disks !== undefined && !Array.isArray(disks)) throw bad(op, 'disks', 'an array', disks)
  const more = ((disks as unknown[] | undefined) ?? []).map((each, index) => readDisk(op, `disks[${index}]`, each))
  if (more.length > MAX_DISKS - 1) throw bad(op, 'disks', `at most ${MAX_DISKS - 1}`, disks)
  if (!('disk' in named)) return { rootfs: readSharedRoot(op, rootfs), disks: more }
  const { disk, ...root } = readOptions(op, named, ['disk', 'format', 'mode'], 'rootfs')
  return {
    rootfs: { kind: 'disk' } as const,
    disks: [readDisk(op, 'rootfs', { ...root, path: disk }, 'disk'), ...more],
  }
}

function readDisk(op: string, name: string, value: unknown, key = 'path'): NativeDisk {
  const { path, format, mode } = readOptions(op, value, ['path', 'format', 'mode'], name)
  const known = readChoice(op, `${name}.format`, format, ['raw', 'qcow2'])
  return {
    path: readAbsolute(op, `${name}.${key}`, path),
    ...(known && { format: known }),
    mode: readChoice(op, `${name}.mode`, mode, ['overlay', 'direct', 'readonly']) ?? 'overlay',
  }
}

function readAtLeast(op: string, name: string, value: unknown, least: number): number | undefined {
  const bytes = readSize(op, name, value)
  if (bytes !== undefined && bytes < least) throw bad(op, name, `at least ${least} bytes`, value)
  return bytes
}

function readGuestPath(op: string, name: string, value: unknown): string {
  const path = readText(op, name, value)
  if (!path.startsWith('/')) throw bad(op, name, 'an absolute path', value)
  return path
}

export function readLabels(op: string, value: unknown): Record<string, string> {
  if (value === undefined) return {}
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(op, 'labels', 'an object', value)
  return Object.fromEntries(
    Object.entries(value).map(([key, label]) => {
      if (key === '' || key.includes('\0')) throw bad(op, 'labels', 'names that are not empty', key)
      return [key, readText(op, `labels.${key}`, label)]
    }),
  )
}
