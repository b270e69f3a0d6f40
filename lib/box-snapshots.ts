// The snapshots of one box, and the boxes that are cloned from them.
import { randomBytes } from 'node:crypto'
import type { Box } from './box.js'
import type { BoxState, SnapshotInfo } from './box-types.js'
import { SluiceboxError } from './errors.js'
import type { Cancellable } from './image-types.js'
import type { BoxRecord } from './native.js'
import { bad, readBoolean, readInteger, readOptions, readSignal, readText } from './options.js'
import { readLabels } from './options-box.js'
import { readName } from './options-exec.js'

type Above = (...args: never[]) => unknown

export interface SnapshotOptions extends Cancellable {
  /** The machine's memory as well, of a box that runs. Default false. */
  memory?: boolean
  labels?: Record<string, string>
}
export interface CloneOptions extends Cancellable {
  /** The clone persists. Default: none, and the clone is removed when it stops. */
  name?: string
  /** A snapshot's name or id. Default: this very moment, in a snapshot that goes again. */
  from?: string
  /** Goes on from the memory of the snapshot instead of booting from its disk. Default: whether `from` has it; without `from` false. */
  memory?: boolean
}

/** What snapshots need of their box. */
export interface SnapshotHome {
  readonly boxId: string
  readonly state: BoxState
  readonly isEphemeral: boolean
  /** Throws for a box that is gone. */
  check(op: string): void
  run(op: string, native: string, request: object, signal: AbortSignal | undefined, above: Above): Promise<unknown>
  clone(op: string, request: CloneRequest, signal: AbortSignal | undefined, above: Above): Promise<Box>
  /** The box's disks have other files now. */
  changed(record: BoxRecord): void
  stop(signal: AbortSignal | undefined): Promise<unknown>
  start(signal: AbortSignal | undefined): Promise<void>
}

/** As the door takes it, beside the box's handle and the home. */
export interface CloneRequest {
  readonly name?: string
  readonly snapshot: string
  readonly memory?: boolean
  readonly bootTimeoutMs: number
}

type NativeSnapshot = Omit<SnapshotInfo, 'createdAt' | 'labels'> & { createdAt: number; labels: string }

const BOOT_TIMEOUT_MS = 60_000
const MAX_CLONES = 1000
const LIVE: readonly BoxState[] = ['starting', 'running', 'paused', 'stopping']

export class BoxSnapshots {
  readonly #home: SnapshotHome

  /** @internal */
  constructor(home: SnapshotHome) {
    this.#home = home
  }

  /** Oldest first. */
  async list(options?: Cancellable): Promise<SnapshotInfo[]> {
    const op = 'box.snapshots.list'
    const signal = readSignal(op, readOptions(op, options, ['signal']).signal)
    signal?.throwIfAborted()
    this.#home.check(op)
    const list = (await this.#home.run(op, 'box.snapshots', {}, signal, this.list)) as NativeSnapshot[]
    return list.map(toSnapshotInfo)
  }

  /**
   * The box is what it was then: its disks, and with them the machine, where the snapshot has memory. What it did since is lost. A box
   * that ran runs again; its executions have ended. `name`: a snapshot's name or id.
   */
  async restore(name: string, options?: Cancellable): Promise<void> {
    const op = 'box.snapshots.restore'
    const wanted = readText(op, 'name', name)
    const signal = readSignal(op, readOptions(op, options, ['signal']).signal)
    signal?.throwIfAborted()
    this.#home.check(op)
    if (this.#home.isEphemeral)
      throw new SluiceboxError('UNSUPPORTED', `${op}: the box has no name, so it is gone once it has stopped`, {
        op,
        boxId: this.#home.boxId,
        hint: 'Clone it from the snapshot instead: box.clone({ from }).',
      })
    // Before anything is stopped for it.
    await this.#home.run(op, 'box.restore', { name: wanted, checkOnly: true }, signal, this.restore)
    const ran = LIVE.includes(this.#home.state)
    if (ran) await this.#home.stop(signal)
    const { record, goesOn } = (await this.#home.run(
      op,
      'box.restore',
      { name: wanted, checkOnly: false },
      signal,
      this.restore,
    )) as {
      record: BoxRecord
      goesOn: boolean
    }
    this.#home.changed(record)
    if (ran || goesOn) await this.#home.start(signal)
  }

  /**
   * Its memory goes, and each layer of the disks that nothing lies on any more. Of a box that stands, the layers that only the box still
   * needs are merged, which takes the time of the smaller one's bytes. Boxes that were cloned from it do not need it.
   */
  async remove(name: string, options?: Cancellable): Promise<void> {
    const op = 'box.snapshots.remove'
    const wanted = readText(op, 'name', name)
    const signal = readSignal(op, readOptions(op, options, ['signal']).signal)
    signal?.throwIfAborted()
    this.#home.check(op)
    await this.#drop(op, wanted, signal, this.remove)
  }

  /** For Box.snapshot(). @internal */
  async take(name: string | undefined, options: SnapshotOptions | undefined, above: Above): Promise<SnapshotInfo> {
    const op = 'box.snapshot'
    const { memory, labels, signal } = readOptions(op, options, ['memory', 'labels', 'signal'])
    const wanted = name === undefined ? nameless('snapshot') : readName(op, 'name', name)
    const request = {
      name: wanted,
      memory: readBoolean(op, 'memory', memory) ?? false,
      labels: JSON.stringify(readLabels(op, labels)),
    }
    return this.#take(op, request, readSignal(op, signal), above)
  }

  /** For Box.clone(). @internal */
  async clone(
    options: (CloneOptions & { count?: number }) | undefined,
    above: Above,
  ): Promise<Box | PromiseSettledResult<Box>[]> {
    const op = 'box.clone'
    const read = readOptions(op, options, ['name', 'from', 'memory', 'count', 'signal'])
    const count = readInteger(op, 'count', read.count, 1, MAX_CLONES)
    const name = read.name === undefined ? undefined : readName(op, 'name', read.name)
    if (name !== undefined && count !== undefined) throw bad(op, 'name', 'none beside count', name)
    const from = read.from === undefined ? undefined : readText(op, 'from', read.from)
    const memory = readBoolean(op, 'memory', read.memory)
    const signal = readSignal(op, read.signal)
    signal?.throwIfAborted()
    this.#home.check(op)
    const snapshot = from ?? (await this.#moment(op, memory ?? false, signal, above))
    const request = {
      snapshot,
      bootTimeoutMs: BOOT_TIMEOUT_MS,
      ...(name !== undefined && { name }),
      ...(memory !== undefined && { memory }),
    }
    const make = () => this.#home.clone(op, request, signal, above)
    try {
      return count === undefined ? await make() : await Promise.allSettled(Array.from({ length: count }, make))
    } finally {
      // The box may be gone meanwhile, and the snapshot with it.
      if (from === undefined) await this.#drop(op, snapshot, undefined, above).catch(() => {})
    }
  }

  async #drop(op: string, name: string, signal: AbortSignal | undefined, above: Above): Promise<void> {
    this.#home.changed((await this.#home.run(op, 'box.dropSnapshot', { name }, signal, above)) as BoxRecord)
  }

  async #moment(op: string, memory: boolean, signal: AbortSignal | undefined, above: Above): Promise<string> {
    const taken = await this.#take(op, { name: nameless('clone'), memory, labels: '{}' }, signal, above)
    return taken.id
  }

  async #take(op: string, request: object, signal: AbortSignal | undefined, above: Above): Promise<SnapshotInfo> {
    signal?.throwIfAborted()
    this.#home.check(op)
    const { snapshot, record } = (await this.#home.run(op, 'box.snapshot', request, signal, above)) as {
      snapshot: NativeSnapshot
      record: BoxRecord
    }
    this.#home.changed(record)
    return toSnapshotInfo(snapshot)
  }
}

const nameless = (what: string): string => `${what}-${randomBytes(6).toString('hex')}`

function toSnapshotInfo({ createdAt, labels, ...rest }: NativeSnapshot): SnapshotInfo {
  return { ...rest, createdAt: new Date(createdAt), labels: JSON.parse(labels || '{}') as Record<string, string> }
}
