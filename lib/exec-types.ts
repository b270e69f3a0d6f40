// The public types of executions. Sizes are bytes, times are milliseconds.
import type { Readable, Writable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import type { SluiceboxError } from './errors.js'
import type { Cancellable } from './image-types.js'

/** File and arguments; no shell. An empty one is INVALID_ARGUMENT. */
export type Argv = readonly string[]
export type Signal = NodeJS.Signals | `SIGRTMIN+${number}`
export type Bytes = Uint8Array

/** Who a process runs as: a name or uid of the box's own /etc/passwd, or numbers. */
export type User = string | number | { uid: number; gid?: number }

export type StdinSource =
  | 'ignore'
  | 'pipe'
  | Readable
  | ReadableStream<Bytes>
  | Iterable<Bytes>
  | AsyncIterable<Bytes | string>

export interface ExecOptions extends Cancellable {
  /** Default: made up. One that a live execution of the box has is EXEC_EXISTS. */
  id?: string
  /** Default: the box's. A relative path is taken from there. */
  cwd?: string
  /** Over the box's own; `undefined` removes a variable. */
  env?: Record<string, string | undefined>
  /** Default: the box's. */
  user?: User
  /** Bytes for stdin, then EOF; not to be changed until the process has them. Not together with `stdin`. */
  input?: string | Bytes
  /** Default 'ignore': the process sees EOF at once. A source that fails closes stdin and kills the process. */
  stdin?: StdinSource
  /** 'ignore': /dev/null in the box. Default 'pipe'. */
  stdout?: 'pipe' | 'ignore'
  /** 'stdout': both in one stream, in the order written. Default 'pipe'. */
  stderr?: 'pipe' | 'ignore' | 'stdout'
  /** A terminal on stdin, stdout and stderr, which all arrive as stdout. Default 80 × 24, TERM=xterm. */
  tty?: boolean | { cols: number; rows: number; term?: string }
  /** Lifetime limit of the process, kept beside it. No default. */
  timeoutMs?: number
  /** What `timeoutMs`, an abort and kill() send. Default SIGTERM. */
  killSignal?: Signal
  /** Time from killSignal to SIGKILL. Default 5000; false disables. */
  forceKillAfterMs?: number | false
  /** Bytes held per stream before the process is made to wait. Default 1 MiB. */
  highWaterMark?: number
}

export interface RunOptions extends Omit<ExecOptions, 'stdin'> {
  stdin?: Exclude<StdinSource, 'pipe'>
  /** Default 'utf8'. */
  encoding?: 'utf8' | 'latin1' | 'buffer'
  /** Reject with ExecFailedError when exitCode is not 0. Default false. */
  check?: boolean
  /** Removes one newline at the end of each output. Default true. */
  stripFinalNewline?: boolean
  /** Also build result.all, in arrival order. Default false. */
  all?: boolean
  /** Per-stream cap in bytes. Default 16 MiB. */
  maxBuffer?: number
  /** At the cap: kill and reject ('error', the default), keep the first bytes ('truncate-tail') or the last ('truncate-head'). */
  overflow?: 'error' | 'truncate-tail' | 'truncate-head'
  /** Hears each chunk; while the promise it returns is pending, no more is read. */
  onStdout?: (chunk: Bytes) => void | Promise<void>
  onStderr?: (chunk: Bytes) => void | Promise<void>
}

export interface ExitInfo {
  /** undefined when a signal ended the process. */
  readonly exitCode: number | undefined
  readonly signal: Signal | undefined
  readonly signalDescription: string | undefined
  /** Exit code 0. */
  readonly ok: boolean
  /** SIGKILL had to be sent because the first signal was not enough. */
  readonly forced: boolean
  /** Ended because timeoutMs ran out: wait() resolves and says so, run() rejects with ExecTimeoutError. */
  readonly timedOut: boolean
  readonly durationMs: number
  readonly startedAt: Date
  readonly usage?: { userMs: number; systemMs: number; maxRssBytes: number }
}

export interface RunResult<O = string> extends ExitInfo {
  readonly id: string
  readonly boxId: string
  /** As seen in the box. */
  readonly pid: number
  readonly argv: Argv
  /** argv quoted for a shell with control characters escaped: safe to print. */
  readonly escapedCommand: string
  readonly cwd: string
  readonly stdout: O
  readonly stderr: O
  readonly all?: O
  /** Bytes left out of each. */
  readonly truncated: { stdout: number; stderr: number }
}

export interface ExecutionInfo {
  id: string
  pid: number
  argv: Argv
  startedAt: Date
  running: boolean
  tty: boolean
}

export type ExecutionEvent = { type: 'stdout' | 'stderr'; chunk: Bytes } | { type: 'exit'; exit: ExitInfo }

export interface ExecutionEvents {
  stdout: [chunk: Bytes]
  stderr: [chunk: Bytes]
  /**
   * Terminal, once, after every byte has gone to each reader attached when the process ended; a stream that nobody reads does not
   * hold it, and its held bytes stay readable until dispose. Exclusive with error.
   */
  exit: [exit: ExitInfo]
  /** Terminal, once: the process was lost rather than finished. */
  error: [error: SluiceboxError]
}

export interface ExecStdin {
  /** False once it was ended, or the process reads no more. */
  readonly writable: boolean
  /** Settles when the process's pipe has taken the bytes, which may be changed at once. STDIN_CLOSED: nobody reads them any more. */
  write(data: string | Bytes): Promise<void>
  /** Half-close: the process sees EOF after what was written. On a terminal: its EOF character. A second end() resolves. */
  end(data?: string | Bytes): Promise<void>
  toWritable(): Writable
}
