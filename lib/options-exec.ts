// Every check of an argument of boxes' executions.
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import { InvalidArgumentError } from './errors.js'
import type { RunOptions, Signal } from './exec-types.js'
import {
  bad,
  readBoolean,
  readChoice,
  readFunction,
  readInteger,
  readOptions,
  readSignal,
  readSize,
  readText,
} from './options.js'
import { signalNumber } from './signals.js'
import type { Source } from './sources.js'
import { toBytes } from './stdin.js'

/** As the addon takes it. */
export type NativeUser =
  | { readonly kind: 'root' }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'ids'; readonly uid: number; readonly gid?: number }

export type StdinSettings =
  | { readonly kind: 'ignore' | 'pipe' }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'source'; readonly source: Source }

export interface ExecSettings {
  /** Whether run() collects it, and tells what became of it. */
  readonly isRun: boolean
  readonly id: string
  readonly argv: readonly string[]
  readonly cwd: string | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  readonly user: NativeUser | undefined
  readonly stdin: StdinSettings
  readonly stdout: 'pipe' | 'ignore'
  readonly stderr: 'pipe' | 'ignore' | 'stdout'
  readonly tty: { readonly cols: number; readonly rows: number; readonly term?: string } | undefined
  readonly timeoutMs: number
  readonly killSignal: Signal
  readonly forceKillAfterMs: number | false
  readonly highWaterMark: number
  readonly signal: AbortSignal | undefined
}

export interface RunSettings extends ExecSettings {
  readonly encoding: 'utf8' | 'latin1' | 'buffer'
  readonly check: boolean
  readonly stripFinalNewline: boolean
  readonly all: boolean
  readonly maxBuffer: number
  readonly overflow: 'error' | 'truncate-tail' | 'truncate-head'
  readonly onStdout: RunOptions['onStdout']
  readonly onStderr: RunOptions['onStderr']
}

const MAX_MS = 2 ** 31 - 1
const MAX_SIZE = 65_535
const execKeys = [
  ...['id', 'cwd', 'env', 'user', 'input', 'stdin', 'stdout', 'stderr', 'tty', 'timeoutMs', 'killSignal'],
  ...['forceKillAfterMs', 'highWaterMark', 'signal'],
]
const runKeys = [
  ...execKeys,
  ...['encoding', 'check', 'stripFinalNewline', 'all', 'maxBuffer', 'overflow', 'onStdout', 'onStderr'],
]

export function readExec(argv: unknown, value: unknown): ExecSettings {
  return { ...execSettings('box.exec', argv, readOptions('box.exec', value, execKeys)), isRun: false }
}

export function readRun(op: string, argv: unknown, value: unknown, more: readonly string[] = []): RunSettings {
  const options = readOptions(op, value, [...runKeys, ...more])
  if (options.stdin === 'pipe')
    throw new InvalidArgumentError('stdin', `'pipe' needs somebody to write: use exec(), or input`, op)
  return {
    ...execSettings(op, argv, options),
    isRun: true,
    encoding: readChoice(op, 'encoding', options.encoding, ['utf8', 'latin1', 'buffer']) ?? 'utf8',
    check: readBoolean(op, 'check', options.check) ?? false,
    stripFinalNewline: readBoolean(op, 'stripFinalNewline', options.stripFinalNewline) ?? true,
    all: readBoolean(op, 'all', options.all) ?? false,
    maxBuffer: readInteger(op, 'maxBuffer', options.maxBuffer, 0) ?? 16 * 2 ** 20,
    overflow: readChoice(op, 'overflow', options.overflow, ['error', 'truncate-tail', 'truncate-head']) ?? 'error',
    onStdout: readFunction(op, 'onStdout', options.onStdout),
    onStderr: readFunction(op, 'onStderr', options.onStderr),
  }
}

/** The shell's own arguments, and the rest of the options. */
export function readShell(script: unknown, value: unknown): RunSettings {
  const op = 'box.shell'
  const text = readText(op, 'script', script)
  const { shell } = readOptions(op, value, [...runKeys, 'shell'])
  const file = shell === undefined ? '/bin/sh' : readText(op, 'shell', shell)
  return readRun(op, [file, '-c', text], value, ['shell'])
}

function execSettings(op: string, argv: unknown, options: Record<string, unknown>): Omit<ExecSettings, 'isRun'> {
  const tty = readTty(op, options.tty)
  const stdout = readChoice(op, 'stdout', options.stdout, ['pipe', 'ignore'])
  const stderr = readChoice(op, 'stderr', options.stderr, ['pipe', 'ignore', 'stdout'])
  // A terminal is one thing for all three: what is asked for beside it could not be kept.
  if (tty && (stdout === 'ignore' || stderr === 'ignore'))
    throw new InvalidArgumentError(stdout === 'ignore' ? 'stdout' : 'stderr', `'ignore' is not for a terminal`, op)
  return {
    id: options.id === undefined ? randomBytes(12).toString('hex') : readName(op, 'id', options.id),
    argv: readArgv(op, argv),
    cwd: options.cwd === undefined ? undefined : readFilled(op, 'cwd', options.cwd),
    env: readEnv(op, options.env, true),
    user: readUser(op, options.user),
    stdin: readStdin(op, options),
    stdout: stdout ?? 'pipe',
    stderr: tty ? 'stdout' : (stderr ?? 'pipe'),
    tty,
    timeoutMs: readInteger(op, 'timeoutMs', options.timeoutMs, 1, MAX_MS) ?? 0,
    killSignal: readSignalName(op, 'killSignal', options.killSignal) ?? 'SIGTERM',
    forceKillAfterMs: readForce(op, 'forceKillAfterMs', options.forceKillAfterMs) ?? 5000,
    highWaterMark: readHighWaterMark(op, options.highWaterMark),
    signal: readSignal(op, options.signal),
  }
}

function readArgv(op: string, value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.length === 0) throw bad(op, 'argv', 'a file and its arguments, in an array', value)
  // A copy: what the caller does to its array later changes nothing. Array.from sees holes, which map() would skip.
  const argv = Array.from(value, (entry, index) => readText(op, `argv[${index}]`, entry))
  if (argv[0] === '') throw bad(op, 'argv[0]', 'a file', '')
  return Object.freeze(argv)
}

/** `removable`: undefined takes a variable away. */
export function readEnv(op: string, value: unknown, removable: boolean): Record<string, string | undefined> {
  if (value === undefined) return {}
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(op, 'env', 'an object', value)
  const env: Record<string, string | undefined> = Object.create(null)
  for (const [key, entry] of Object.entries(value)) {
    if (key === '' || /[=\0]/.test(key)) throw bad(op, 'env', `names without '=' and NUL characters`, key)
    env[key] = removable && entry === undefined ? undefined : readText(op, `env.${key}`, entry)
  }
  return env
}

const MAX_ID = 2 ** 32 - 2

export function readUser(op: string, value: unknown): NativeUser | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string') return { kind: 'name', name: readFilled(op, 'user', value) }
  if (typeof value === 'number') return { kind: 'ids', uid: readInteger(op, 'user', value, 0, MAX_ID) as number }
  const ids = readOptions(op, value, ['uid', 'gid'], 'user')
  const uid = readInteger(op, 'user.uid', ids.uid, 0, MAX_ID)
  if (uid === undefined) throw bad(op, 'user.uid', 'an integer', undefined)
  const gid = readInteger(op, 'user.gid', ids.gid, 0, MAX_ID)
  return { kind: 'ids', uid, ...(gid !== undefined && { gid }) }
}

function readStdin(op: string, { input, stdin }: Record<string, unknown>): StdinSettings {
  if (input !== undefined) {
    if (stdin !== undefined) throw new InvalidArgumentError('input', 'not together with stdin', op)
    const bytes = toBytes(input)
    if (bytes === undefined) throw bad(op, 'input', 'a string or bytes', input)
    return { kind: 'bytes', bytes }
  }
  if (stdin === undefined || stdin === 'ignore') return { kind: 'ignore' }
  if (stdin === 'pipe') return { kind: 'pipe' }
  if (stdin instanceof Readable || stdin instanceof ReadableStream) return { kind: 'source', source: stdin }
  // A string is iterable too, and a likely slip for `input`; bytes as well.
  const iterable =
    typeof stdin === 'object' && stdin !== null && (Symbol.iterator in stdin || Symbol.asyncIterator in stdin)
  if (!iterable || stdin instanceof Uint8Array)
    throw bad(op, 'stdin', `'ignore', 'pipe', a stream or an iterable of bytes (for one text or buffer: input)`, stdin)
  return { kind: 'source', source: stdin as Source }
}

function readTty(op: string, value: unknown): ExecSettings['tty'] {
  if (value === undefined || value === false) return undefined
  if (value === true) return { cols: 80, rows: 24 }
  const tty = readOptions(op, value, ['cols', 'rows', 'term'], 'tty')
  const size = readTerminalSize(op, tty, 'tty.')
  return { ...size, ...(tty.term !== undefined && { term: readFilled(op, 'tty.term', tty.term) }) }
}

export function readTerminalSize(op: string, value: unknown, prefix = ''): { cols: number; rows: number } {
  const size = prefix ? (value as Record<string, unknown>) : readOptions(op, value, ['cols', 'rows'], 'size')
  const cols = readInteger(op, `${prefix}cols`, size.cols, 1, MAX_SIZE)
  const rows = readInteger(op, `${prefix}rows`, size.rows, 1, MAX_SIZE)
  if (cols === undefined || rows === undefined)
    throw bad(op, `${prefix}${cols === undefined ? 'cols' : 'rows'}`, 'an integer', undefined)
  return { cols, rows }
}

export function readSignalName(op: string, name: string, value: unknown): Signal | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'string' || signalNumber(value) === undefined)
    throw bad(op, name, `the name of a signal, like 'SIGTERM'`, value)
  return value as Signal
}

export function readForce(op: string, name: string, value: unknown): number | false | undefined {
  return value === false ? false : readInteger(op, name, value, 0, MAX_MS)
}

function readHighWaterMark(op: string, value: unknown): number {
  const bytes = readSize(op, 'highWaterMark', value) ?? 2 ** 20
  if (bytes < 1 || bytes > 2 ** 30) throw bad(op, 'highWaterMark', 'from 1 byte to 1 GiB', value)
  return bytes
}

function readFilled(op: string, name: string, value: unknown): string {
  const text = readText(op, name, value)
  if (text === '') throw bad(op, name, 'a string that is not empty', value)
  return text
}

const MAX_NAME_BYTES = 128

/** Of a box or an execution. */
export function readName(op: string, name: string, value: unknown): string {
  const text = readFilled(op, name, value)
  if (/[/\p{Cc}]|\.\.|^[-.]/u.test(text) || Buffer.byteLength(text) > MAX_NAME_BYTES)
    throw bad(
      op,
      name,
      `up to ${MAX_NAME_BYTES} bytes without '/', '..' or control characters, not starting with '-' or '.'`,
      value,
    )
  return text
}

export function readWait(op: string, value: unknown, more: readonly string[] = []) {
  const options = readOptions(op, value, ['timeoutMs', 'signal', ...more])
  return {
    timeoutMs: readInteger(op, 'timeoutMs', options.timeoutMs, 0, MAX_MS),
    signal: readSignal(op, options.signal),
    options,
  }
}
