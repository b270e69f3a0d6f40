// The one table from native error codes to the classes of the contract.
import {
  BoxLostError,
  BoxNotFoundError,
  BoxStartError,
  type ExecErrorResult,
  ExecLostError,
  ExecSpawnError,
} from './box-errors.js'
import {
  type ErrorDetails,
  ImageError,
  InvalidArgumentError,
  RuntimeClosedError,
  SluiceboxError,
  type SluiceboxErrorCode,
} from './errors.js'
import type { NativeError } from './native.js'

/** All that a native error may carry, whatever its code. */
export interface NativeDetails extends ErrorDetails {
  readonly offset?: number
  readonly phase?: BoxStartError['phase']
  readonly consoleTail?: string
  readonly result?: ExecErrorResult
}

type Made = (message: string, details: NativeDetails) => SluiceboxError

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
  box_not_found: (message, details) => new BoxNotFoundError(message, details),
  box_exists: plain('BOX_EXISTS'),
  box_state: plain('BOX_STATE'),
  box_start: (message, details) => new BoxStartError(message, details),
  box_lost: (message, details) => new BoxLostError(message, details),
  in_use: plain('IN_USE'),
  home_incompatible: plain('HOME_INCOMPATIBLE'),
  snapshot_not_found: plain('SNAPSHOT_NOT_FOUND'),
  snapshot_exists: plain('SNAPSHOT_EXISTS'),
  exec_spawn: (message, details) => new ExecSpawnError(message, details),
  exec_lost: (message, details) => new ExecLostError(message, details),
  exec_exists: plain('EXEC_EXISTS'),
  stdin_closed: plain('STDIN_CLOSED'),
}

/** What the SDK knows of a failing call that the native side does not. */
export type ErrorContext = Pick<NativeDetails, 'boxId' | 'result'>

/** Where a call came from. `stack` is what the program's Error.prepareStackTrace makes of it, when it has one. */
export interface Trace {
  readonly stack?: unknown
}

/** The public error for a native one, with the stack of the call that submitted the work. */
export function fromNative(
  names: ReadonlyMap<number, string>,
  native: NativeError,
  op: string,
  trace?: Trace,
  context?: ErrorContext,
) {
  const name = names.get(native.code)
  // An addon of another version may know more codes than this table: its failure still is one.
  const make = (name === undefined ? undefined : errorFactories[name]) ?? unknownCode(native.code)
  const error = make(native.message, {
    op,
    path: native.path,
    errno: native.errno,
    hint: native.hint,
    offset: native.offset,
    phase: native.phase,
    consoleTail: native.consoleTail,
    ...context,
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
