// The runtime: one event queue, its workers, and the boxes and images worked on with them.
import { execFile } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Box } from './box.js'
import type { BoxFilter, BoxInfo, BoxLifecycleEvent, Isolation } from './box-types.js'
import { Boxes, type CreateOptions } from './boxes.js'
import { Drain } from './drain.js'
import { RuntimeClosedError } from './errors.js'
import { TypedEvents } from './events.js'
import type {
  BoxResizeResult,
  Cancellable,
  DiskFormat,
  ImageOp,
  Images,
  RebaseOptions,
  RebaseResult,
  Size,
} from './image-types.js'
import { ImageOperations } from './images.js'
import { type Core, loadAddon, type NativeError } from './native.js'
import { fromNative } from './native-errors.js'
import type { Call } from './operation.js'
import { Operations } from './operations.js'
import { type RuntimeOptions, readCloseOptions, readOptions, readRuntimeOptions, readSignal } from './options.js'
import type { BoxPool } from './pool.js'

export interface RuntimeStats {
  queue: {
    /** Events waiting now. */
    depth: number
    capacity: number
    /** Payload bytes held now: the same as lanes.bytes. */
    bytes: number
    highWater: number
    /** Always 0. */
    dropped: number
    /** How long the call next in line waited for room in the queue, in total. Those behind it are not added. */
    blockedMs: number
    wakeups: number
  }
  lanes: { open: number; bytes: number; stalled: number }
  drain: { passes: number; events: number; longestMs: number; listenerErrors: number }
  handles: { live: number; claimed: number; finalized: number }
  /** Of this runtime: those it made or got. */
  boxes: { running: number; total: number }
}

export type ImageLifecycleEvent = {
  type: 'started' | 'finished' | 'failed'
  op: ImageOp
  path: string
  at: Date
  /** With 'failed': what the call rejected with. A SluiceboxError, or the reason of its signal, which may be anything. */
  error?: unknown
}

export interface RuntimeEvents {
  box: [event: BoxLifecycleEvent]
  /** 'started' when a call was let into the queue, then one of the others. A call that ends before that is not told of. */
  image: [event: ImageLifecycleEvent]
  pressure: [event: { depth: number; capacity: number; state: 'high' | 'normal' }]
  /** A listener threw inside the drain loop. Without a listener here it becomes an uncaught exception. */
  listenerError: [error: unknown, event: { target: string; name: string }]
  close: []
}

export interface DoctorReport {
  ok: boolean
  node: string
  addon: { version: string; abi: number; path: string }
  /** What virtual machines run on. Their processors are emulated ('tcg'); `isolation.vm.why` says why. `kernel`: its release. */
  hypervisor: { name: 'qemu' | null; version: string | null; accel: 'tcg'[]; kernel: string | null }
  /** Which boxes come up here: one of namespaces was made and taken away to see. `why` one does not, or not at its best. */
  isolation: Record<Isolation, { usable: boolean; why?: string }>
  formats: Record<DiskFormat, { create: boolean; read: boolean; write: boolean; rebase: boolean }>
  problems: { code: string; message: string; fix?: string }[]
}

async function qemuVersion(program: string): Promise<string | null> {
  const { stdout } = await promisify(execFile)(program, ['--version'])
  return /version (\S+)/.exec(stdout)?.[1] ?? null
}

/** Above it the queue is under pressure, below the second no longer: the gap keeps the state from flickering. */
const PRESSURE_HIGH = 0.75
const PRESSURE_NORMAL = 0.5

/** How long closing waits for worker threads once every promise has settled. */
const JOIN_MS = 1000

export class Runtime extends TypedEvents<RuntimeEvents> implements AsyncDisposable {
  readonly images: Images
  /** State directory. */
  readonly home: string
  readonly #drain: Drain
  readonly #operations: { readonly images: Operations; readonly boots: Operations; readonly calls: Operations }
  readonly #boxes: Boxes
  readonly #images: ImageOperations
  #listenerErrors = 0
  #pressure: 'high' | 'normal' = 'normal'
  #referenced = false
  #closing: Promise<void> | undefined

  /** @throws INVALID_ARGUMENT, ADDON_LOAD, INTERNAL when the system gives no thread */
  constructor(options?: RuntimeOptions) {
    const settings = readRuntimeOptions(options)
    super('runtime', (error, event) => this.#listenerFailed(error, event))
    this.home = settings.home
    const errorNames = new Map(loadAddon().addon.errorCodes)
    try {
      this.#drain = new Drain(settings, (depth) => this.#afterPass(depth, settings.maxEvents))
    } catch (error) {
      throw typeof (error as NativeError).code === 'number'
        ? fromNative(errorNames, error as NativeError, 'new Runtime')
        : error
    }
    const around = {
      drain: this.#drain,
      errorNames,
      listenerFailed: (error: unknown, event: { target: string; name: string }) => this.#listenerFailed(error, event),
      roomMade: () => this.#roomMade(),
    }
    this.#operations = {
      images: new Operations(settings.imageConcurrency, around),
      boots: new Operations(settings.bootConcurrency, around),
      // Executions and questions: nothing but the queue's room bounds them.
      calls: new Operations(Number.POSITIVE_INFINITY, around),
    }
    this.#boxes = new Boxes(settings, {
      ...around,
      ...this.#operations,
      framed: process.env.SLUICEBOX_TRANSPORT === 'framed',
      isolation: settings.isolation,
      isClosed: () => this.#closing !== undefined,
      lifecycle: (event) => this.emit('box', event),
    })
    this.#images = new ImageOperations(
      (op, path, call, above) => this.#runImage(op, path, call, above),
      (call, above) => this.#operations.images.run(call, above),
    )
    this.images = this.#images
    endWithProcess(this.#drain.core)
    internals.set(this, { drain: this.#drain, operations: this.#operations.images })
  }

  /**
   * Makes a box and starts it. Aborting rejects at once, and what completes late is destroyed.
   * @throws INVALID_ARGUMENT, UNSUPPORTED, BOX_EXISTS, BOX_START, IN_USE, RUNTIME_CLOSED
   */
  create(options?: CreateOptions): Promise<Box> {
    return this.#boxes.create(options, this.create)
  }

  /**
   * The box of that id or name. One that was left running is this runtime's from here on; a box of namespaces that another process owns
   * is used beside it. @throws BOX_NOT_FOUND, IN_USE (a virtual machine that another process owns; one that is just being started or ended)
   */
  get(idOrName: string, options?: Cancellable): Promise<Box> {
    return this.#boxes.get('get', idOrName, options, this.get)
  }

  has(idOrName: string, options?: Cancellable): Promise<boolean> {
    return this.#boxes.has(idOrName, options, this.has)
  }

  /** `size` boxes made ahead: acquire() hands one over at once, and the next is made behind it. Resolves when it is full. */
  pool(options: CreateOptions & { size: number }): Promise<BoxPool> {
    return this.#boxes.pool(options, this.pool)
  }

  /** Every box of the home, those of other processes too. */
  list(filter?: BoxFilter & Cancellable): Promise<BoxInfo[]> {
    return this.#boxes.list(filter, this.list)
  }

  /** Removes a box with all it wrote. One that runs is BOX_STATE, unless with `force`. */
  remove(idOrName: string, options?: { force?: boolean } & Cancellable): Promise<void> {
    return this.#boxes.remove(idOrName, options, this.remove)
  }

  /**
   * Moves an overlay to another backing image without changing what a guest reads: of an image file the same as images.rebase; of a
   * box one of its disks (`disk`: its path or device, default the root disk), also while it runs.
   */
  rebase(target: string | Box, options: RebaseOptions & { disk?: string }): Promise<RebaseResult> {
    if (target instanceof Box) return this.#boxes.rebase(target, options, this.rebase)
    return this.#images.rebaseAs('rebase', target, options, this.rebase)
  }

  /**
   * Makes a disk of a virtual machine larger (`disk`: its path or device, default the root disk), also while it runs: the guest sees the
   * new size at once, and zeros in what it gained. Partitions and file systems are the guest's to fit. An image file: images.resize.
   */
  resize(box: Box, size: Size, options?: { disk?: string } & Cancellable): Promise<BoxResizeResult> {
    return this.#boxes.resize(box, size, options, this.resize)
  }

  /** What this host and this build can do. */
  async doctor(options?: { signal?: AbortSignal }): Promise<DoctorReport> {
    const signal = readSignal('doctor', readOptions('doctor', options, ['signal']).signal)
    if (signal?.aborted) throw signal.reason
    if (this.#closing) throw new RuntimeClosedError('doctor', false)
    const { addon, path } = loadAddon()
    const built = { create: true, read: true, write: true }
    const means = await this.#boxes.means(signal, this.doctor)
    const { missing, noHostRoot, noNamespaces } = means
    const problems = [missing, noHostRoot, noNamespaces].filter((lack) => lack !== undefined)
    return {
      ok: noNamespaces === undefined,
      node: process.version,
      addon: { version: addon.version, abi: addon.abi, path },
      hypervisor: {
        name: means.qemu === '' ? null : 'qemu',
        version: means.qemu === '' ? null : await qemuVersion(means.qemu),
        accel: missing ? [] : ['tcg'],
        kernel: means.kernel === '' ? null : means.kernel,
      },
      isolation: {
        vm: {
          usable: missing === undefined && noNamespaces === undefined,
          why:
            missing?.message ??
            `its processors are emulated: ${means.noKvm || 'KVM would run here, but is not used yet'}`,
        },
        namespace: { usable: noNamespaces === undefined, ...(noNamespaces && { why: noNamespaces.message }) },
      },
      formats: {
        raw: { ...built, rebase: false },
        qcow2: { ...built, rebase: true },
        vmdk: { ...built, rebase: true },
        vhd: { ...built, rebase: true },
        vhdx: { ...built, rebase: true },
      },
      problems: problems.map(({ message, hint }) => ({ code: 'UNSUPPORTED', message, ...(hint && { fix: hint }) })),
    }
  }

  /** Counters of this moment; after close, the last ones. */
  stats(): RuntimeStats {
    const { lanes, handles, ...queue } = this.#drain.core.stats()
    return {
      queue: {
        ...queue,
        blockedMs: Object.values(this.#operations).reduce((sum, { blockedMs }) => sum + blockedMs, 0),
      },
      lanes,
      drain: { ...this.#drain.stats, listenerErrors: this.#listenerErrors },
      handles,
      boxes: this.#boxes.counts,
    }
  }

  /** Keeps the process alive until unref() or close(). */
  ref(): this {
    if (this.#referenced || this.#closing) return this
    this.#referenced = true
    this.#drain.hold()
    return this
  }

  /** Undoes ref(): only pending calls keep the process alive. */
  unref(): this {
    if (this.#referenced) this.#drain.release()
    this.#referenced = false
    return this
  }

  /**
   * Refuses new calls, cancels those in flight and stops every box (ephemeral ones are removed), waits for them (at most `timeoutMs`,
   * default 10,000; processes have half of it, and 5,000 at most, to end by themselves), and ends the workers. Every pending promise
   * settles: with its true result, or RUNTIME_CLOSED. Idempotent; safe from inside a callback. With `boxes: 'leave'` named boxes run
   * on, without the executions that this runtime started in them, until a later runtime of this user and home gets them.
   */
  close(options?: { timeoutMs?: number; boxes?: 'stop' | 'leave' }): Promise<void> {
    try {
      const { timeoutMs, leave } = readCloseOptions(options)
      this.#closing ??= this.#close(timeoutMs, leave)
      return this.#closing
    } catch (error) {
      return Promise.reject(error)
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(timeoutMs: number, leave: boolean): Promise<void> {
    const { core } = this.#drain
    const images = this.#images.closeAll()
    if (images) await soonest(images, timeoutMs)
    core.beginClose()
    const operations = Object.values(this.#operations).map((each) => each.close(timeoutMs))
    await Promise.all([...operations, this.#boxes.close(timeoutMs, leave)])
    await this.#boxes.closeLate()
    this.unref()
    core.shutdown(0)
    this.#drain.discard()
    if (!(await ended(core))) {
      process.emitWarning('a worker is stuck in a system call; its operation was settled and its thread left behind', {
        type: 'SluiceboxWarning',
      })
    }
    this.#boxes.cutOff()
    live.delete(core)
    this.emit('close')
  }

  async #runImage(op: ImageOp, path: string, call: Call, above: (...args: never[]) => unknown): Promise<unknown> {
    if (this.#closing) throw new RuntimeClosedError(call.name, false)
    let started = false
    const onStart = () => {
      started = true
      this.emit('image', { type: 'started', op, path, at: new Date() })
    }
    try {
      const value = await this.#operations.images.run({ ...call, onStart }, above)
      this.emit('image', { type: 'finished', op, path, at: new Date() })
      return value
    } catch (error) {
      if (started) this.emit('image', { type: 'failed', op, path, at: new Date(), error })
      throw error
    }
  }

  #afterPass(depth: number, capacity: number): void {
    this.#roomMade()
    const state =
      depth >= capacity * PRESSURE_HIGH ? 'high' : depth <= capacity * PRESSURE_NORMAL ? 'normal' : this.#pressure
    if (state === this.#pressure) return
    this.#pressure = state
    this.emit('pressure', { depth, capacity, state })
  }

  #roomMade(): void {
    if (this.#operations) for (const each of Object.values(this.#operations)) each.roomMade()
  }

  #listenerFailed(error: unknown, event: { target: string; name: string }): void {
    this.#listenerErrors++
    const heard = event.name !== 'listenerError' && this.listenerCount('listenerError') > 0
    if (heard) this.emit('listenerError', error, event)
    else queueMicrotask(() => throwUncaught(error))
  }
}

/** Waits for what never rejects, but no longer than that. */
async function soonest(work: Promise<void>, timeoutMs: number): Promise<void> {
  const enough = new AbortController()
  const { signal } = enough
  await Promise.race([work, sleep(timeoutMs, undefined, { signal }).catch(() => {})])
  enough.abort()
}

function throwUncaught(error: unknown): never {
  throw error
}

/** Looks whether the workers have ended, from later turns of the loop, which a join that waits would stop. False: one is stuck. */
async function ended(core: Core): Promise<boolean> {
  const deadline = performance.now() + JOIN_MS
  for (let pause = 1; !core.shutdown(0); pause = Math.min(2 * pause, 32)) {
    if (performance.now() >= deadline) return false
    await sleep(pause)
  }
  return true
}

// process.exit() runs no cleanup hook of the addon: without this a worker would still run while the process's memory is torn down.
const live = new Set<Core>()
let exitHooked = false

function endWithProcess(core: Core): void {
  live.add(core)
  if (exitHooked) return
  exitHooked = true
  process.on('exit', () => {
    // All are told to end before the first is waited for: together they take the time of one.
    for (const each of live) each.shutdown(0)
    const deadline = performance.now() + JOIN_MS
    for (const each of live) each.shutdown(Math.max(0, deadline - performance.now()))
  })
}

/** What is behind a runtime, for the tests' own producers. @internal */
export const internals = new WeakMap<Runtime, { drain: Drain; operations: Operations }>()
