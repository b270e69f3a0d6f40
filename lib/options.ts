// Every check of an argument: at the door, once, in words. What passes here is well-formed; what it means is checked natively.
import { availableParallelism, homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { inspect, types } from 'node:util'
import type { Isolation } from './box-types.js'
import { ImageError, InvalidArgumentError } from './errors.js'

type Keys = readonly string[]

/** A plain object whose keys are all known; a misspelt key is named, with the one that was probably meant. */
export function readOptions(op: string, value: unknown, known: Keys, name = 'options'): Record<string, unknown> {
  if (value === undefined) return {}
  requireObject(op, name, value)
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue
    const meant = known.find((candidate) => looksLike(candidate, key))
    throw new InvalidArgumentError(
      name === 'options' ? key : `${name}.${key}`,
      `${op} has no such option${meant ? `; did you mean "${meant}"?` : ` (it has ${known.join(', ')})`}`,
      op,
    )
  }
  return value
}

/** What says of itself that it is something else (a Promise, a Map, a Date) has no options in it: all would be dropped in silence. */
export function requireObject(op: string, name: string, value: unknown): asserts value is Record<string, unknown> {
  if (types.isPromise(value)) throw bad(op, name, 'an object; is an await missing', value)
  const kind = typeof value === 'object' && Object.prototype.toString.call(value)
  if (kind !== '[object Object]' && kind !== '[object Module]') throw bad(op, name, 'an object', value)
}

export function readPath(op: string, name: string, value: unknown): string {
  const text = readText(op, name, value)
  if (text === '') throw bad(op, name, 'a path', value)
  return text
}

/** Bound to the working directory of this moment, and not normalised: `link/..` means what the kernel says. */
export function readAbsolute(op: string, name: string, value: unknown): string {
  const path = readPath(op, name, value)
  if (isAbsolute(path)) return path
  try {
    return `${process.cwd()}/${path}`
  } catch {
    throw bad(op, name, 'an absolute path, for the working directory is gone', value)
  }
}

export function readText(op: string, name: string, value: unknown): string {
  if (typeof value !== 'string') throw bad(op, name, 'a string', value)
  if (value.includes('\0')) throw bad(op, name, 'a string without NUL characters', value)
  return value
}

export function readBoolean(op: string, name: string, value: unknown): boolean | undefined {
  if (value !== undefined && typeof value !== 'boolean') throw bad(op, name, 'true or false', value)
  return value
}

export function readInteger(op: string, name: string, value: unknown, min: number, max = Number.MAX_SAFE_INTEGER) {
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
    throw bad(
      op,
      name,
      max === Number.MAX_SAFE_INTEGER ? `an integer from ${min} up` : `an integer from ${min} to ${max}`,
      value,
    )
  }
  return value
}

export function readChoice<const C extends readonly (string | number)[]>(
  op: string,
  name: string,
  value: unknown,
  choices: C,
): C[number] | undefined {
  if (value === undefined) return undefined
  if (!choices.includes(value as C[number]))
    throw bad(op, name, `one of ${choices.map((choice) => inspect(choice)).join(', ')}`, value)
  return value as C[number]
}

const suffixes: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** Bytes; above 2^53-1 is UNSUPPORTED, for a number cannot say it exactly. */
export function readSize(op: string, name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined
  const bytes = typeof value === 'string' ? sizeFromText(value) : value
  if (typeof bytes !== 'number' || Number.isNaN(bytes) || bytes < 0)
    throw bad(op, name, `bytes, or a string like '10G'`, value)
  if (bytes > Number.MAX_SAFE_INTEGER) {
    throw new ImageError('UNSUPPORTED', `${name}: sizes above 2^53-1 bytes are not supported, got ${inspect(value)}`, {
      op,
    })
  }
  if (!Number.isInteger(bytes)) throw bad(op, name, 'a whole number of bytes', value)
  return bytes
}

function sizeFromText(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)$/.exec(text)
  return match ? Number(match[1]) * (suffixes[match[2] ?? ''] ?? 1) : undefined
}

export function readFunction<F>(op: string, name: string, value: unknown): F | undefined {
  if (value !== undefined && typeof value !== 'function') throw bad(op, name, 'a function', value)
  return value as F | undefined
}

export function readSignal(op: string, value: unknown): AbortSignal | undefined {
  if (value !== undefined && !isSignal(value)) throw bad(op, 'signal', 'an AbortSignal', value)
  return value
}

/** One of Node's, another realm's or a polyfill's: by what it does, for its class may be any, and one of the class may do nothing. */
function isSignal(value: unknown): value is AbortSignal {
  if (typeof value !== 'object' || value === null) return false
  const { addEventListener, removeEventListener } = value as Partial<AbortSignal>
  if (typeof addEventListener !== 'function' || typeof removeEventListener !== 'function') return false
  const nothing = () => {}
  try {
    addEventListener.call(value, 'abort', nothing)
    removeEventListener.call(value, 'abort', nothing)
    return typeof (value as AbortSignal).aborted === 'boolean'
  } catch {
    return false
  }
}

// ---------- the runtime ----------
export interface RuntimeOptions {
  /** State directory; images in it may name each other. Default: $SLUICEBOX_HOME, else sluicebox in the XDG data directory. Not created before it is needed. */
  home?: string
  /** Worker threads doing image work. Default: min(4, availableParallelism()). */
  workers?: number
  /** Capacity of the native event queue, kept at submission: an operation that finds no room waits. */
  queue?: {
    /** Default 4096; 8 to 65,536. */
    maxEvents?: number
    /** Default 64 MiB. */
    maxBytes?: number
  }
  /** How many image operations run, and how many boxes start, at once. Default: the number of workers; 4. */
  concurrency?: { images?: number; boots?: number }
  /** What stands between a box and the host when create() does not say. Default 'auto': namespaces, which is what is built. */
  isolation?: Isolation | 'auto'
  /**
   * Directories outside of which an image or a backing file is refused. Default: paths that the caller names are not limited; paths
   * that an image names must lie in that image's directory or in the home, or be named by the caller in the same call. ['/'] trusts
   * every path.
   */
  allowPaths?: string[]
  /**
   * Where virtual machines that have just booted are kept, so that the next like one goes on from there instead of booting: a directory
   * that nobody else can write to; several homes may share one. At most 8 are kept, of 100 to 200 MB each. Default: $SLUICEBOX_TEMPLATES,
   * else templates in the home. false: every machine boots by itself.
   */
  templates?: string | false
}

export interface RuntimeSettings {
  readonly home: string
  readonly templates: string | undefined
  readonly isolation: Isolation
  readonly workers: number
  readonly maxEvents: number
  readonly maxBytes: number
  readonly imageConcurrency: number
  readonly bootConcurrency: number
  readonly directories: readonly string[]
  readonly restrictCallers: boolean
}

export function readRuntimeOptions(value: unknown): RuntimeSettings {
  const op = 'new Runtime'
  const known = ['home', 'workers', 'queue', 'concurrency', 'isolation', 'allowPaths', 'templates']
  const options = readOptions(op, value, known)
  const queue = readOptions(op, options.queue, ['maxEvents', 'maxBytes'], 'queue')
  const concurrency = readOptions(op, options.concurrency, ['images', 'boots'], 'concurrency')
  const isolation = readIsolation(op, options.isolation) ?? 'namespace'
  const home = readAbsolute(op, 'home', options.home === undefined ? defaultHome(op) : options.home)
  const workers = readInteger(op, 'workers', options.workers, 1, 64) ?? Math.min(4, availableParallelism())
  const allowed = options.allowPaths === undefined ? undefined : readPaths(op, 'allowPaths', options.allowPaths)
  const { templates = process.env.SLUICEBOX_TEMPLATES || join(home, 'templates') } = options
  return {
    home,
    templates: templates === false ? undefined : readAbsolute(op, 'templates', templates),
    isolation,
    workers,
    maxEvents: readInteger(op, 'queue.maxEvents', queue.maxEvents, 8, 2 ** 16) ?? 4096,
    maxBytes: readInteger(op, 'queue.maxBytes', queue.maxBytes, 2 ** 16) ?? 64 * 2 ** 20,
    imageConcurrency: readInteger(op, 'concurrency.images', concurrency.images, 1, 1024) ?? workers,
    bootConcurrency: readInteger(op, 'concurrency.boots', concurrency.boots, 1, 1024) ?? 4,
    directories: [home, ...(allowed ?? [])],
    restrictCallers: allowed !== undefined,
  }
}

function readPaths(op: string, name: string, value: unknown): string[] {
  if (!Array.isArray(value)) throw bad(op, name, 'an array of directories', value)
  // Array.from: map() would pass over a hole.
  return Array.from(value, (entry, index) => readAbsolute(op, `${name}[${index}]`, entry))
}

function defaultHome(op: string): string {
  const { SLUICEBOX_HOME, XDG_DATA_HOME } = process.env
  return SLUICEBOX_HOME || join(XDG_DATA_HOME || join(userHome(op), '.local', 'share'), 'sluicebox')
}

function userHome(op: string): string {
  try {
    return homedir()
  } catch {
    throw new InvalidArgumentError(
      'home',
      'expected a directory, for this user has none to take by default',
      op,
      'Pass home, or set SLUICEBOX_HOME.',
    )
  }
}

/** Namespaces are what is built. */
/** 'auto' is 'vm' where a guest runs at the machine's own speed: nowhere yet, since its processors are emulated. */
export function readIsolation(op: string, value: unknown): Isolation | undefined {
  const isolation = readChoice(op, 'isolation', value, ['vm', 'namespace', 'auto'])
  return isolation === 'auto' ? 'namespace' : isolation
}

export function readCloseOptions(value: unknown): { timeoutMs: number; leave: boolean } {
  const options = readOptions('close', value, ['timeoutMs', 'boxes'])
  return {
    timeoutMs: readInteger('close', 'timeoutMs', options.timeoutMs, 0, 2 ** 31 - 1) ?? 10_000,
    leave: readChoice('close', 'boxes', options.boxes, ['stop', 'leave'] as const) === 'leave',
  }
}

// ---------- words ----------
export function bad(op: string, name: string, expected: string, got: unknown): InvalidArgumentError {
  return new InvalidArgumentError(name, `expected ${expected}, got ${shown(got)}`, op)
}

/** An object may have its own way to be shown, which may throw. */
function shown(value: unknown): string {
  try {
    return inspect(value, { depth: 0, maxStringLength: 80, maxArrayLength: 3, breakLength: Infinity })
  } catch {
    return 'an object that cannot be shown'
  }
}

/** Equal but for case, or within one edit. */
function looksLike(known: string, typed: string): boolean {
  const [a, b] = [known.toLowerCase(), typed.toLowerCase()]
  if (a === b || a.startsWith(b) || b.startsWith(a)) return true
  if (Math.abs(a.length - b.length) > 1) return false
  let i = 0
  while (i < a.length && a[i] === b[i]) i++
  const [restA, restB] = [a.slice(i), b.slice(i)]
  return (
    restA.slice(1) === restB.slice(1) || restA.slice(1) === restB || restA === restB.slice(1) || swapped(restA, restB)
  )
}

function swapped(a: string, b: string): boolean {
  return a.length > 1 && a[0] === b[1] && a[1] === b[0] && a.slice(2) === b.slice(2)
}
