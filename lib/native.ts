// The one file that loads the addon, and the types of its door.
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import type { BoxState, Isolation, StopReason } from './box-types.js'
import { SluiceboxError } from './errors.js'

/** Identifies one operation or other handle of a Core: generation and slot in one safe integer. */
export type HandleId = number

/** What a worker failed with, as it crosses the door: a number, never a text to be parsed. */
export interface NativeError {
  readonly code: number
  readonly message: string
  readonly errno?: string
  readonly path?: string
  readonly offset?: number
  readonly hint?: string
  /** Of a box that did not start. */
  readonly phase?: 'prepare' | 'boot' | 'agent'
  readonly consoleTail?: string
}

export interface NativeDisk {
  readonly path: string
  readonly format?: 'raw' | 'qcow2'
  readonly mode: 'overlay' | 'direct' | 'readonly'
  /** The box's own file above it. */
  readonly overlayPath?: string
}

/** A box as its directory in the home records it. */
export interface BoxRecord {
  readonly id: string
  readonly name?: string
  readonly state: BoxState
  /** Milliseconds of the epoch. */
  readonly createdAt: number
  readonly startedAt?: number
  readonly ephemeral: boolean
  readonly isolation: Isolation
  readonly rootfs: { readonly kind: 'host' | 'disk' } | { readonly kind: 'directory'; readonly path: string }
  /** Of a virtual machine: the first holds its root file system. */
  readonly disks?: readonly NativeDisk[]
  readonly memory: number
  readonly vcpus: number
  readonly maxProcesses: number
  readonly storage: number
  readonly warnings: readonly string[]
  /** The SDK's own JSON text, given back as it was. */
  readonly config: string
}

/** What a process used and how it ended. */
export interface NativeExit {
  readonly exitCode?: number
  readonly signal?: number
  readonly timedOut: boolean
  readonly forced: boolean
  readonly startedAt: number
  readonly durationMs: number
  readonly userMs: number
  readonly systemMs: number
  readonly maxRssBytes: number
  /** How many bytes of each stream, from its first, are the process's own; an orphan may have written more. */
  readonly ownStdout: number
  readonly ownStderr: number
}

/** Something that happened to a box or an execution, in the order it did. */
export type News =
  | { readonly kind: 'answer'; readonly request: number; readonly value?: unknown; readonly error?: NativeError }
  | {
      readonly kind: 'state'
      readonly state: BoxState
      readonly previous: BoxState
      readonly reason?: StopReason
      readonly error?: NativeError
    }
  | ({ readonly kind: 'exit' } & NativeExit)
  | { readonly kind: 'lost'; readonly error: NativeError }
  /** The lane is full: the process waits until somebody reads. Told once. */
  | { readonly kind: 'stalled'; readonly lane: number }

/** The lanes of an execution. */
export const LANE = { stdout: 1, stderr: 2 } as const

/** A claimed payload. From claim(), null means: claimed before its work ended; undefined: somebody else claimed first. */
export type Outcome = { readonly value: unknown } | { readonly error: NativeError }

export interface NativeProgress {
  readonly phase: string
  readonly done: number
  readonly total: number | null
  readonly unit: 'bytes' | 'clusters' | 'items'
}
export interface NativeStats {
  readonly depth: number
  readonly capacity: number
  readonly bytes: number
  readonly highWater: number
  readonly dropped: number
  readonly wakeups: number
  readonly lanes: { readonly open: number; readonly bytes: number; readonly stalled: number }
  readonly handles: { readonly live: number; readonly claimed: number; readonly finalized: number }
}
export interface CoreOptions {
  readonly workers: number
  readonly maxEvents: number
  readonly maxBytes: number
  /** Directories that images may name paths in. */
  readonly directories: readonly string[]
  /** Whether paths that callers name must lie in them as well. */
  readonly restrictCallers: boolean
}

/** One event queue, its workers and its handles. Lives on the thread that made it. */
export interface Core {
  /** Copies the next batch into the records buffer and returns how many; 0 lets the bell ring again. */
  take(): number
  /** Throws a NativeError-like object; `queue_full` means: submit again when a handle was finalised. */
  submit(op: string, request: object, wantsProgress: boolean): HandleId
  progress(id: HandleId): NativeProgress | undefined
  claim(id: HandleId): Outcome | null | undefined
  /** False when the operation's effect already stands, so that it will report success. */
  cancel(id: HandleId): boolean
  /** Never queued; the answer comes among the handle's news. Throws a NativeError for an unknown or ended handle. */
  command(id: HandleId, verb: string, request: object): number
  /** What happened since the last call; to be asked for after a `control` or `terminal` record. */
  news(id: HandleId): readonly News[]
  /** `more`: bytes are left, and no record will tell of them; `ended`: nothing ever follows. */
  read(
    id: HandleId,
    lane: number,
    limit: number,
  ): { readonly chunk: Buffer; readonly more: boolean; readonly ended: boolean }
  /** The SDK is done with the handle: its lanes are discarded, its slots given back. Ends no process. */
  release(id: HandleId): void
  /** No submission is accepted from here on. */
  beginClose(): void
  /**
   * Cancels what runs, closes the queue, joins the workers; false when one was still stuck after `waitMs`. May be called again, to
   * look again: a second after the first call it waits no more.
   */
  shutdown(waitMs: number): boolean
  stats(): NativeStats
  /** Records queued now. */
  depth(): number
  /** Keeps the event loop alive while true. */
  hold(on: boolean): void
}

export interface Addon {
  readonly version: string
  readonly abi: number
  /** Every native error code: [number, name]. */
  readonly errorCodes: readonly (readonly [number, string])[]
  readonly Core: new (options: CoreOptions, records: Uint32Array, onBatch: (count: number) => void) => Core
}

/** What a record says of its handle. */
export const RECORD = { completion: 1, progress: 2, readable: 3, control: 4, terminal: 5 } as const

/** 32-bit words in a record: kind | flags << 8, slot, generation, length, value low, value high. */
export const RECORD_WORDS = 6
export const BATCH_RECORDS = 256

const ABI = 1

let loaded: { addon: Addon; path: string } | undefined

/** @throws SluiceboxError ADDON_LOAD naming every place that was tried. */
export function loadAddon(): { addon: Addon; path: string } {
  loaded ??= findAddon()
  return loaded
}

function findAddon(): { addon: Addon; path: string } {
  const failures: string[] = []
  for (const candidate of candidates()) {
    try {
      const addon = createRequire(import.meta.url)(candidate) as Addon
      if (addon.abi !== ABI) throw new Error(`its ABI is ${addon.abi}, this package needs ${ABI}: rebuild it`)
      return { addon, path: candidate }
    } catch (error) {
      failures.push(`${candidate}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`)
    }
  }
  throw new SluiceboxError('ADDON_LOAD', `the native addon could not be loaded (${failures.join('; ')})`, {
    op: 'load',
    hint: 'Run "npm run build" in a checkout; when bundling, mark "sluicebox" as external.',
  })
}

/** SLUICEBOX_ADDON alone if set (a wrong value must fail loudly), else a build in the checkout, else the prebuilt one. */
function candidates(): string[] {
  if (process.env.SLUICEBOX_ADDON) return [process.env.SLUICEBOX_ADDON]
  try {
    return [
      fileURLToPath(new URL('../build/Release/sluicebox.node', import.meta.url)),
      fileURLToPath(new URL(`../prebuilds/${process.platform}-${process.arch}/sluicebox.node`, import.meta.url)),
    ]
  } catch {
    // A bundler that emits CommonJS leaves import.meta.url empty.
    return ['sluicebox.node (import.meta.url is empty: the package was bundled)']
  }
}
