// The error classes of the contract, and the one table from native codes to them.
import type { DiskFormat } from './image-types.js'
import type { NativeError } from './native.js'

export type SluiceboxErrorCode =
  | 'INVALID_ARGUMENT'
  | 'UNSUPPORTED'
  | 'ADDON_LOAD'
  | 'RUNTIME_CLOSED'
  | 'PERMISSION'
  | 'NO_SPACE'
  | 'IO'
  | 'INTERNAL'
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

type Made = (message: string, details: ErrorDetails & { offset?: number }) => SluiceboxError

const plain =
  (code: SluiceboxErrorCode): Made =>
  (message, details) =>
    new SluiceboxError(code, message, details)
const image =
  (code: SluiceboxErrorCode): Made =>
  (message, details) =>
    new ImageError(code, message, details)

/**
 * Native error name → the error it becomes. A test walks every native code through it. `cancelled` and `queue_full` never
 * reach a caller: the first becomes the abort reason, the second a wait.
 */
export const errorFactories: Readonly<Record<string, Made>> = {
  // The native message starts with the key, as this class's own does: "clusterSize: must be …".
  invalid_argument: (message, details) => {
    const key = /^([A-Za-z.]+): /.exec(message)
    return new InvalidArgumentError(
      key?.[1] ?? 'options',
      key ? message.slice(key[0].length) : message,
      details.op,
      details.hint,
    )
  },
  unsupported: image('UNSUPPORTED'),
  closed: (_message, details) => new RuntimeClosedError(details.op, true),
  cancelled: plain('INTERNAL'),
  permission: plain('PERMISSION'),
  no_space: plain('NO_SPACE'),
  io: plain('IO'),
  out_of_memory: plain('INTERNAL'),
  internal: plain('INTERNAL'),
  queue_full: plain('INTERNAL'),
  image_not_found: image('IMAGE_NOT_FOUND'),
  image_exists: image('IMAGE_EXISTS'),
  image_format: image('IMAGE_FORMAT'),
  image_corrupt: image('IMAGE_CORRUPT'),
  image_locked: image('IMAGE_LOCKED'),
  image_chain: image('IMAGE_CHAIN'),
  image_too_small: image('IMAGE_TOO_SMALL'),
  path_refused: plain('PERMISSION'),
}

/** Where a call came from. `stack` is what the program's Error.prepareStackTrace makes of it, when it has one. */
export interface Trace {
  readonly stack?: unknown
}

/** The public error for a native one, with the stack of the call that submitted the work. */
export function fromNative(names: ReadonlyMap<number, string>, native: NativeError, op: string, trace?: Trace) {
  const name = names.get(native.code)
  // An addon of another version may know more codes than this table: its failure still is one.
  const make = (name === undefined ? undefined : errorFactories[name]) ?? unknownCode(native.code)
  const error = make(native.message, {
    op,
    path: native.path,
    errno: native.errno,
    hint: native.hint,
    offset: native.offset,
  })
  return withCallersStack(error, trace)
}

const unknownCode =
  (code: number): Made =>
  (message, details) =>
    new SluiceboxError('INTERNAL', `${message} (native error code ${code} has no class)`, details)

/** Replaces the frames of the drain, which tell a user nothing, by those of the call. */
export function withCallersStack<E extends Error>(error: E, trace?: Trace): E {
  const stack = stackOf(trace)
  const frames = stack?.slice(stack.indexOf('\n'))
  if (frames?.startsWith('\n'))
    Object.defineProperty(error, 'stack', {
      value: `${error.name}: ${error.message}${frames}`,
      writable: true,
      configurable: true,
    })
  return error
}

/** Reading it runs the program's code, which may throw or give something else than text: the error then keeps its own stack. */
function stackOf(trace: Trace | undefined): string | undefined {
  try {
    const stack = trace?.stack
    return typeof stack === 'string' ? stack : undefined
  } catch {
    return undefined
  }
}
