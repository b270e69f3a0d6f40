// The error classes of boxes and executions.
import { type ErrorDetails, SluiceboxError, type SluiceboxErrorCode } from './errors.js'
import type { RunResult } from './exec-types.js'

/** What is known of the execution that an error is about. */
export type ExecErrorResult = Partial<RunResult<string | Uint8Array>>

/** The home has no box of that id or name. */
export class BoxNotFoundError extends SluiceboxError<'BOX_NOT_FOUND'> {
  constructor(message: string, details: ErrorDetails) {
    super('BOX_NOT_FOUND', message, details)
  }

  static {
    named(BoxNotFoundError)
  }
}

/** A box could not be started; nothing but its record remains. */
export class BoxStartError extends SluiceboxError<'BOX_START'> {
  /** How far it came. */
  readonly phase: 'prepare' | 'boot' | 'agent'
  /** The end of what the box said before it failed. */
  readonly consoleTail: string

  constructor(message: string, details: ErrorDetails & Partial<Pick<BoxStartError, 'phase' | 'consoleTail'>>) {
    super('BOX_START', message, details)
    this.phase = details.phase ?? 'prepare'
    this.consoleTail = details.consoleTail ?? ''
  }

  static {
    named(BoxStartError)
  }
}

/** The box ended on its own while a call needed it. */
export class BoxLostError extends SluiceboxError<'BOX_LOST'> {
  /** The end of what a virtual machine said on its console; else empty. */
  readonly consoleTail: string

  constructor(message: string, details: ErrorDetails & Partial<Pick<BoxLostError, 'consoleTail'>>) {
    super('BOX_LOST', message, details)
    this.consoleTail = details.consoleTail ?? ''
  }

  static {
    named(BoxLostError)
  }
}

export interface ExecErrorDetails extends ErrorDetails {
  readonly result?: ExecErrorResult
}

/** An execution failed. `result` has what is known of it: its output too, where run() collected it. */
export class ExecError<C extends SluiceboxErrorCode = SluiceboxErrorCode> extends SluiceboxError<C> {
  /** The message without the output. */
  readonly shortMessage: string
  /** The message of the cause. */
  declare readonly originalMessage?: string
  readonly result: ExecErrorResult

  constructor(code: C, message: string, details: ExecErrorDetails) {
    super(code, message, details)
    this.shortMessage = message
    if (details.cause instanceof Error) this.originalMessage = details.cause.message
    this.result = details.result ?? {}
  }

  static {
    named(ExecError)
  }
}

/** With `check`: the process ended with another exit code than 0, or by a signal. Or the source of its stdin failed (`cause`). */
export class ExecFailedError extends ExecError<'EXEC_FAILED'> {
  declare readonly result: RunResult<string | Uint8Array>

  constructor(message: string, details: ExecErrorDetails & { readonly result: RunResult<string | Uint8Array> }) {
    super('EXEC_FAILED', message, details)
  }

  static {
    named(ExecFailedError)
  }
}

/** `timeoutMs` ran out, and the process was ended. */
export class ExecTimeoutError extends ExecError<'EXEC_TIMEOUT'> {
  readonly timeoutMs: number

  constructor(message: string, details: ExecErrorDetails & { readonly timeoutMs: number }) {
    super('EXEC_TIMEOUT', message, details)
    this.timeoutMs = details.timeoutMs
  }

  static {
    named(ExecTimeoutError)
  }
}

/** A stream grew past `maxBuffer`, and the process was ended. */
export class ExecOverflowError extends ExecError<'EXEC_OVERFLOW'> {
  readonly maxBuffer: number
  readonly stream: 'stdout' | 'stderr'

  constructor(
    message: string,
    details: ExecErrorDetails & { readonly maxBuffer: number; readonly stream: 'stdout' | 'stderr' },
  ) {
    super('EXEC_OVERFLOW', message, details)
    this.maxBuffer = details.maxBuffer
    this.stream = details.stream
  }

  static {
    named(ExecOverflowError)
  }
}

/** The program could not be started: `errno` says why. No execution is left. */
export class ExecSpawnError extends ExecError<'EXEC_SPAWN'> {
  constructor(message: string, details: ExecErrorDetails) {
    super('EXEC_SPAWN', message, details)
  }

  static {
    named(ExecSpawnError)
  }
}

/** The box or its agent ended before the process was seen to end: how it ended is not known. */
export class ExecLostError extends ExecError<'EXEC_LOST'> {
  constructor(message: string, details: ExecErrorDetails) {
    super('EXEC_LOST', message, details)
  }

  static {
    named(ExecLostError)
  }
}

/** On the prototype, so that it is no property of each error. */
function named(kind: { readonly name: string; readonly prototype: SluiceboxError }): void {
  Object.defineProperty(kind.prototype, 'name', { value: kind.name, configurable: true })
}
