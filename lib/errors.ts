// What every error of this library is, and the classes of arguments, of the runtime and of images.
import type { DiskFormat } from './image-types.js'

export type SluiceboxErrorCode =
  | 'INVALID_ARGUMENT'
  | 'UNSUPPORTED'
  | 'ADDON_LOAD'
  | 'RUNTIME_CLOSED'
  | 'PERMISSION'
  | 'NO_SPACE'
  | 'IO'
  | 'INTERNAL'
  | 'BOX_NOT_FOUND'
  | 'BOX_EXISTS'
  | 'BOX_STATE'
  | 'BOX_START'
  | 'BOX_LOST'
  | 'IN_USE'
  | 'HOME_INCOMPATIBLE'
  | 'EXEC_SPAWN'
  | 'EXEC_FAILED'
  | 'EXEC_TIMEOUT'
  | 'EXEC_OVERFLOW'
  | 'EXEC_LOST'
  | 'EXEC_NOT_FOUND'
  | 'EXEC_EXISTS'
  | 'SNAPSHOT_NOT_FOUND'
  | 'SNAPSHOT_EXISTS'
  | 'WAIT_TIMEOUT'
  | 'STDIN_CLOSED'
  | 'IMAGE_NOT_FOUND'
  | 'IMAGE_EXISTS'
  | 'IMAGE_FORMAT'
  | 'IMAGE_CORRUPT'
  | 'IMAGE_LOCKED'
  | 'IMAGE_CHAIN'
  | 'IMAGE_TOO_SMALL'

export interface ErrorDetails {
  /** The public call that failed, e.g. 'images.rebase'. */
  readonly op: string
  readonly boxId?: string
  readonly path?: string
  /** errno name when the failure came from the operating system. */
  readonly errno?: string
  readonly hint?: string
  readonly retryable?: boolean
  readonly cause?: unknown
}

const brand = Symbol.for('sluicebox.error')

/** Every error that this library makes. Tell them apart by `code`. */
export class SluiceboxError<C extends SluiceboxErrorCode = SluiceboxErrorCode> extends Error {
  readonly code: C
  /** The public call that failed. */
  readonly op: string
  /** The box concerned. */
  declare readonly boxId?: string
  /** The file concerned. */
  declare readonly path?: string
  /** errno name (e.g. 'ENOSPC') when the failure came from the operating system. */
  declare readonly errno?: string
  /** true only when the operation certainly did not start. */
  readonly retryable: boolean
  /** What to do about it. */
  declare readonly hint?: string

  constructor(code: C, message: string, details: ErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.op = details.op
    this.retryable = details.retryable ?? false
    if (details.boxId !== undefined) this.boxId = details.boxId
    if (details.path !== undefined) this.path = details.path
    if (details.errno !== undefined) this.errno = details.errno
    if (details.hint !== undefined) this.hint = details.hint
  }

  toJSON(): Record<string, unknown> {
    const { name, message, ...own } = this
    return { name: this.name ?? name, message: this.message ?? message, ...own }
  }

  /** True for an error of this library, also one from another realm or another copy of the package. */
  static is(value: unknown): value is SluiceboxError {
    return typeof value === 'object' && value !== null && brand in value
  }

  static {
    Object.defineProperty(SluiceboxError.prototype, 'name', { value: 'SluiceboxError', configurable: true })
    Object.defineProperty(SluiceboxError.prototype, brand, { value: true })
  }
}

/** An argument of the wrong type, out of range, misspelt or missing. `argument` names it. */
export class InvalidArgumentError extends SluiceboxError<'INVALID_ARGUMENT'> {
  readonly argument: string

  constructor(argument: string, expected: string, op: string, hint?: string) {
    super('INVALID_ARGUMENT', `${argument}: ${expected}`, { op, hint, retryable: true })
    this.argument = argument
  }

  static {
    Object.defineProperty(InvalidArgumentError.prototype, 'name', { value: 'InvalidArgumentError', configurable: true })
  }
}

/** The runtime was closed before or while the call ran. */
export class RuntimeClosedError extends SluiceboxError<'RUNTIME_CLOSED'> {
  constructor(op: string, started: boolean) {
    super('RUNTIME_CLOSED', started ? `${op}: the runtime was closed while it ran` : `${op}: the runtime is closed`, {
      op,
      retryable: !started,
      hint: 'Create a new Runtime, or await the call before close().',
    })
  }

  static {
    Object.defineProperty(RuntimeClosedError.prototype, 'name', { value: 'RuntimeClosedError', configurable: true })
  }
}

/** An image is missing, damaged, in use, or not what the call needs. */
export class ImageError<C extends SluiceboxErrorCode = SluiceboxErrorCode> extends SluiceboxError<C> {
  declare readonly format?: DiskFormat
  /** Where in the file the damage was met, in bytes. */
  declare readonly offset?: number

  constructor(code: C, message: string, details: ErrorDetails & { format?: DiskFormat; offset?: number }) {
    super(code, message, details)
    if (details.format !== undefined) this.format = details.format
    if (details.offset !== undefined) this.offset = details.offset
  }

  static {
    Object.defineProperty(ImageError.prototype, 'name', { value: 'ImageError', configurable: true })
  }
}
