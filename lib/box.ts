// One box: its life, and the executions in it.

import { BoxClock } from './box-clock.js'
import { BoxLostError, BoxNotFoundError } from './box-errors.js'
import { BoxExecutions, type ExecutionsHome } from './box-executions.js'
import { toInfo } from './box-info.js'
import { BoxSnapshots, type CloneOptions, type SnapshotHome, type SnapshotOptions } from './box-snapshots.js'
import { type Change, isEnd, States } from './box-states.js'
import type {
  BoxEvents,
  BoxInfo,
  BoxLifecycleEvent,
  BoxState,
  Isolation,
  SnapshotInfo,
  StopReason,
} from './box-types.js'
import { RuntimeClosedError, SluiceboxError } from './errors.js'
import { type ListenerFailure, TypedEvents } from './events.js'
import type { Argv, Bytes, ExecOptions, ExecutionInfo, RunOptions, RunResult } from './exec-types.js'
import type { Execution } from './execution.js'
import { Handle, HandleGone, type HandleSurroundings } from './handle.js'
import type { BoxResizeResult, Cancellable, Progress, RebaseOptions, RebaseResult, Size } from './image-types.js'
import type { BoxRecord, HandleId, News } from './native.js'
import type { Operations } from './operations.js'
import { bad, readBoolean, readOptions, readSignal } from './options.js'
import { type BoxConfig, parseConfig, readBootTimeout, readState, readStop } from './options-box.js'
import { readExec, readRun, readShell, readWait } from './options-exec.js'
import { readBoxResize, readRebase } from './options-images.js'
import { unlessAborted } from './waiter.js'

/** What a box needs of its runtime. */
export interface BoxHome extends HandleSurroundings {
  /** Starts: a few at a time. */
  readonly boots: Operations
  readonly images: Operations
  /** Everything else. */
  readonly calls: Operations
  /** Whether streams are framed instead of passed, as a VM's are. */
  readonly framed: boolean
  /** What a box has when create() does not say. */
  readonly isolation: Isolation
  readonly isClosed: boolean
  listenerFailed: ListenerFailure
  lifecycle(event: BoxLifecycleEvent): void
  /** A new box from a snapshot of another. */
  clone(
    op: string,
    request: object,
    signal: AbortSignal | undefined,
    above: (...args: never[]) => unknown,
  ): Promise<Box>
  /** It was removed, or let go. */
  forget(box: Box): void
}

/**
 * What a box is to this runtime: it made or started it; it was left by another, and is left again; it is another's, of which this is
 * one session; it stood there.
 */
export type Ownership = 'ours' | 'adopted' | 'shared' | 'found'

/** The public method, whose callers the stack of an error should show. */
type Above = (...args: never[]) => unknown

const LIVE: readonly BoxState[] = ['starting', 'running', 'paused', 'stopping']
/** What its executions have to end by themselves when it is left. */
const LEAVE_GRACE_MS = 5000
const ENDED: readonly BoxState[] = ['stopped', 'failed', 'removed']

export class Box extends TypedEvents<BoxEvents> implements AsyncDisposable {
  readonly id: string
  readonly name?: string
  readonly snapshots: BoxSnapshots
  readonly #home: BoxHome
  readonly #handle: Handle
  readonly #states: States
  readonly #executions: BoxExecutions
  readonly #clock: BoxClock
  /** Why its clock stops it. */
  #stopsFor: 'idle' | 'ttl' | undefined
  #idles = false
  #record: BoxRecord
  #ownership: Ownership

  /** Runtime.create() and get() make them. @internal */
  constructor(handle: HandleId, record: BoxRecord, ownership: Ownership, home: BoxHome) {
    super('box', home.listenerFailed)
    this.id = record.id
    if (record.name !== undefined) this.name = record.name
    this.#record = record
    this.#ownership = ownership
    this.#home = home
    const news = (each: News) => each.kind === 'state' && this.#states.tell(each)
    this.#handle = new Handle(handle, 'box', home, { readable: () => {}, news }, { boxId: record.id })
    this.#states = new States(record.state, {
      boxId: record.id,
      executionsEnded: () => this.#executions.allEnded(),
      changed: (change) => this.#changed(change),
      inScope: (work) => this.#handle.scope.runInAsyncScope(work),
    })
    this.#executions = new BoxExecutions(this.#executionsHome())
    this.snapshots = new BoxSnapshots(this.#snapshotHome())
    this.#clock = new BoxClock(parseConfig(record).clock, (why) => this.#timeIsUp(why))
    if (record.state === 'running') this.#clock.run()
    // The record has what these tell, but for what happened after it was read.
    const earlier = home.drain.core.news(handle).filter((each) => each.kind === 'state')
    const known = earlier.findLastIndex(({ state }) => state === record.state)
    const later = earlier.slice(known + 1)
    const tellAll = () => {
      for (const change of later) this.#states.tell(change)
    }
    if (later.length > 0) this.#handle.later(tellAll)
  }

  get state(): BoxState {
    return this.#states.state
  }

  /** @internal */
  get record(): BoxRecord {
    return this.#record
  }

  /** Another process owns it. @internal */
  get isShared(): boolean {
    return this.#ownership === 'shared'
  }

  /** @internal */
  get hasEnded(): boolean {
    return isEnd(this.state)
  }

  /** How often its state has changed here. @internal */
  get changes(): number {
    return this.#states.changes
  }

  async info(options?: Cancellable): Promise<BoxInfo> {
    readSignal('box.info', readOptions('box.info', options, ['signal']).signal)?.throwIfAborted()
    this.#check('box.info')
    return toInfo({ ...this.#record, state: this.state })
  }

  /** Runs a program and collects its output. Resolves when it reached its own end, whatever its exit code. */
  run(argv: Argv, options: RunOptions & { encoding: 'buffer' }): Promise<RunResult<Bytes>>
  run(argv: Argv, options?: RunOptions & { encoding?: 'utf8' | 'latin1' }): Promise<RunResult<string>>
  run(argv: Argv, options?: RunOptions): Promise<RunResult<string | Bytes>> {
    return this.#executions.run('box.run', () => readRun('box.run', argv, options), this.run)
  }

  /** The same with a script for the box's shell (default '/bin/sh'), as one argument of `-c`. */
  shell(script: string, options: RunOptions & { encoding: 'buffer'; shell?: string }): Promise<RunResult<Bytes>>
  shell(
    script: string,
    options?: RunOptions & { encoding?: 'utf8' | 'latin1'; shell?: string },
  ): Promise<RunResult<string>>
  shell(script: string, options?: RunOptions & { shell?: string }): Promise<RunResult<string | Bytes>> {
    return this.#executions.run('box.shell', () => readShell(script, options), this.shell)
  }

  /** Starts a program; resolves when it has been spawned. Its output is held until something reads it. */
  exec(argv: Argv, options?: ExecOptions): Promise<Execution> {
    try {
      return this.#executions.spawn('box.exec', readExec(argv, options), this.exec)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** The executions whose end was not told yet. */
  async executions(): Promise<ExecutionInfo[]> {
    this.#check('box.executions')
    return this.#executions.infos()
  }

  /** Of a box that was created without, stopped, or failed. */
  async start(options?: { bootTimeoutMs?: number } & Cancellable): Promise<void> {
    const op = 'box.start'
    const read = readOptions(op, options, ['bootTimeoutMs', 'signal'])
    const request = { box: this.#handle.id, bootTimeoutMs: readBootTimeout(op, read.bootTimeoutMs) }
    const signal = readSignal(op, read.signal)
    signal?.throwIfAborted()
    this.#check(op)
    if (!['created', 'stopped', 'failed'].includes(this.state)) throw this.#states.wrong(op)
    const adopt = (value: unknown) => this.#started(value as { record: BoxRecord })
    await this.#home.boots.run(
      { name: op, op: 'box.start', request, signal, adopt, context: { boxId: this.id } },
      this.start,
    )
  }

  /** Asks every process to end, and kills what is left after `timeoutMs` (default 10,000), or with `force` at once. */
  async stop(options?: { timeoutMs?: number; force?: boolean } & Cancellable): Promise<StopReason> {
    const op = 'box.stop'
    const { timeoutMs, force, signal } = readStop(op, options)
    signal?.throwIfAborted()
    this.#check(op)
    if (!LIVE.includes(this.state)) throw this.#states.wrong(op)
    return this.#stop(op, force ? 0 : timeoutMs, signal)
  }

  /** Stops the box, if it runs, and starts it. */
  async restart(options?: { timeoutMs?: number } & Cancellable): Promise<void> {
    const { timeoutMs, signal } = readWait('box.restart', options)
    if (LIVE.includes(this.state)) await this.stop({ timeoutMs, signal })
    await this.start({ signal })
  }

  /** Halts a virtual machine's processors: nothing in it runs, no clock of it goes, until resume(). */
  async pause(options?: Cancellable): Promise<void> {
    await this.#turn('box.pause', 'pause', 'paused', options)
  }

  async resume(options?: Cancellable): Promise<void> {
    await this.#turn('box.resume', 'resume', 'running', options)
  }

  /** Somebody is still interested: the idle time begins anew. */
  touch(): void {
    this.#clock.touch()
  }

  /** Removes the box with all it wrote. One that runs is BOX_STATE, unless with `force`. */
  async remove(options?: { force?: boolean } & Cancellable): Promise<void> {
    const op = 'box.remove'
    const read = readOptions(op, options, ['force', 'signal'])
    const force = readBoolean(op, 'force', read.force) ?? false
    const signal = readSignal(op, read.signal)
    signal?.throwIfAborted()
    this.#check(op)
    if (LIVE.includes(this.state)) {
      if (!force) throw this.#states.wrong(op, 'Stop it first, or use force.')
      await this.#stop(op, 0, signal)
    }
    // An ephemeral one goes by itself once it has stopped.
    if (this.#record.ephemeral && (this.state as BoxState) === 'stopped')
      await this.#held(this.#states.reached(op, ['removed'], undefined, signal))
    else await this.#remove(op, signal)
  }

  /** Resolves once the box is in that state; rejects when it was removed instead. */
  async waitForState(state: BoxState, options?: { timeoutMs?: number } & Cancellable): Promise<void> {
    const op = 'box.waitForState'
    const wanted = readState(op, state)
    const { timeoutMs, signal } = readWait(op, options)
    // Of one that was removed, that is known for good.
    if (this.state === 'removed') this.#checkOpen(op)
    else this.#check(op)
    await this.#held(this.#states.reached(op, [wanted], timeoutMs, signal))
  }

  /**
   * An unnamed box is removed; a named one that this runtime made or started is stopped; one that it adopted is left to run on; any
   * other is only let go.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.state === 'removed' || this.#handle.isReleased || this.#home.isClosed) return
    if (this.#ownership === 'shared' || this.#ownership === 'found') this.#letGo()
    else if (this.#record.ephemeral) await this.remove({ force: true })
    else if (this.#ownership === 'adopted' && this.state === 'running') await this.#leave('box.dispose', LEAVE_GRACE_MS)
    else if (LIVE.includes(this.state)) await this.stop()
  }

  /**
   * Keeps one instant of the disks, and with `memory` of the machine, which runs on. Default name: made up. One that the box has is
   * SNAPSHOT_EXISTS.
   */
  snapshot(name?: string, options?: SnapshotOptions): Promise<SnapshotInfo> {
    return this.#busy(this.snapshots.take(name, options, this.snapshot))
  }

  /**
   * Another box that is what this one is now, or was at the snapshot `from`; then the two are independent of each other. It has an id,
   * a host name, random numbers and a clock of its own, and none of this one's executions. With `count`: as many, one settled result
   * each, so that a failure hides no survivor. See docs/clones.md.
   */
  clone(options?: CloneOptions & { count?: undefined }): Promise<Box>
  clone(options: Omit<CloneOptions, 'name'> & { count: number }): Promise<PromiseSettledResult<Box>[]>
  clone(options?: CloneOptions & { count?: number }): Promise<Box | PromiseSettledResult<Box>[]> {
    return this.#busy(this.snapshots.clone(options, this.clone))
  }

  /** For Runtime.rebase(). `disk`: a path or a device of its disks; empty: the root disk. @internal */
  async rebase(disk: string, options: RebaseOptions, above: Above): Promise<RebaseResult> {
    const op = 'rebase'
    this.#check(op)
    const { index, path } = this.#diskOf(op, disk)
    const read = readRebase(op, path, options)
    const startedAt = performance.now()
    const call = {
      name: op,
      op: 'box.rebase',
      request: { ...read, box: this.#handle.id, disk: index },
      signal: readSignal(op, options.signal),
      onProgress: options.onProgress as ((progress: Progress<never>) => void) | undefined,
      context: { boxId: this.id },
    }
    const native = (await this.#busy(this.#home.images.run(call, above))) as RebaseResult
    const durationMs = performance.now() - startedAt
    return { ...native, path, mode: read.unsafe ? 'unsafe' : 'safe', dryRun: read.dryRun, durationMs }
  }

  /** For Runtime.resize(). @internal */
  async resizeDisk(
    size: Size,
    options: ({ disk?: string } & Cancellable) | undefined,
    above: Above,
  ): Promise<BoxResizeResult> {
    const op = 'resize'
    this.#check(op)
    const { disk, signal, size: bytes } = readBoxResize(op, size, options)
    const { index, path } = this.#diskOf(op, disk)
    const startedAt = performance.now()
    const request = { box: this.#handle.id, disk: index, size: bytes }
    const call = { name: op, op: 'box.resize', request, signal, context: { boxId: this.id } }
    const native = (await this.#busy(this.#home.images.run(call, above))) as Pick<BoxResizeResult, 'from' | 'to'>
    return { ...native, path, durationMs: performance.now() - startedAt }
  }

  /** By a path or a device; empty: the root disk. */
  #diskOf(op: string, disk: string): { index: number; path: string } {
    const { disks, diskPath } = toInfo({ ...this.#record, state: this.state })
    const index = disk === '' ? 0 : disks.findIndex(({ path, device }) => [path, device].includes(disk))
    if (index < 0) throw bad(op, 'disk', `one of the box's disks`, disk)
    return { index, path: disks[index]?.overlayPath ?? diskPath ?? this.id }
  }

  /** Once what is being done to it is over. `isOver`: it was found not to run any more, which is yet to be heard here. @internal */
  async settled(isOver: boolean, signal: AbortSignal | undefined): Promise<void> {
    const { state } = this
    if (state === 'starting') await this.#held(this.#states.reached('create', ['running', ...ENDED], undefined, signal))
    else if (state === 'stopping' || (isOver && LIVE.includes(state)))
      await this.#held(this.#states.reached('create', ENDED, undefined, signal))
  }

  /** For a pool: what its new owner wants over what it was made with. @internal */
  async configure({ env, labels }: Pick<BoxConfig, 'env' | 'labels'>): Promise<void> {
    const op = 'pool.acquire'
    const had = parseConfig(this.#record)
    const config = JSON.stringify({ ...had, env: { ...had.env, ...env }, labels: { ...had.labels, ...labels } })
    const request = { box: this.#handle.id, config }
    await this.#home.calls.run({ name: op, op: 'box.configure', request, context: { boxId: this.id } }, this.configure)
    this.#record = { ...this.#record, config }
  }

  /** For close(): asks it to stop, or leaves it if it can be. Resolves when it has. @internal */
  async end(graceMs: number, leave: boolean): Promise<void> {
    if (this.#ownership === 'shared' || !LIVE.includes(this.state)) return
    if (leave && !this.#record.ephemeral) {
      try {
        return await this.#leave('close', graceMs)
      } catch (error) {
        const text = `box ${this.name} could not be left to run on, and is stopped: ${(error as Error).message}`
        process.emitWarning(text, { type: 'SluiceboxWarning' })
      }
    }
    await this.#stop('close', graceMs, undefined)
  }

  /** The runtime is closed: what was not told by now is told. @internal */
  cutOff(error: RuntimeClosedError): void {
    const lost = (op: string) =>
      new SluiceboxError('EXEC_LOST', `${op}: the runtime was closed before the process was seen to end`, {
        op,
        boxId: this.id,
        cause: error,
      })
    this.#executions.cutOff(lost)
    this.#states.close(error)
    this.#handle.release()
  }

  /** It is not idle meanwhile. */
  #busy<T>(work: Promise<T>): Promise<T> {
    this.#clock.enter()
    return work.finally(() => this.#clock.leave())
  }

  #snapshotHome(): SnapshotHome {
    const self = this
    const context = { boxId: this.id }
    return {
      boxId: this.id,
      isEphemeral: this.#record.ephemeral,
      get state() {
        return self.state
      },
      check: (op) => this.#check(op),
      run: (name, op, request, signal, above) =>
        this.#home.calls.run({ name, op, request: { ...request, box: this.#handle.id }, signal, context }, above),
      clone: (op, request, signal, above) => this.#home.clone(op, { ...request, box: this.#handle.id }, signal, above),
      changed: (record) => {
        this.#record = record
      },
      stop: (signal) => this.stop({ force: true, signal }),
      start: (signal) => this.start({ signal }),
    }
  }

  #executionsHome(): ExecutionsHome {
    const self = this
    const { drain, errorNames, handles, framed, listenerFailed, calls } = this.#home
    return {
      drain,
      errorNames,
      handles,
      framed,
      listenerFailed,
      boxId: this.id,
      handle: this.#handle.id,
      get config() {
        return parseConfig(self.#record)
      },
      ready: (op) => this.#ready(op),
      submit: (call, above) => calls.run(call, above),
      entered: () => this.#clock.enter(),
      left: () => this.#clock.leave(),
      spawned: (execution) => {
        if (this.listenerCount('exec') > 0) this.#handle.later(() => this.emit('exec', execution))
      },
    }
  }

  /** Whether programs run in it; one that was paused for idleness is woken. */
  #ready(op: string): Promise<void> | undefined {
    this.#check(op)
    if (this.state === 'paused' && this.#idles) return this.resume()
    if (this.state !== 'running') throw this.#states.wrong(op)
    return undefined
  }

  #timeIsUp(why: 'idle' | 'ttl'): void {
    if (why === 'idle' && parseConfig(this.#record).clock.onIdle === 'pause') {
      this.#idles = true
      // Refused while its disk is moved, or not there any more: its idle time begins anew, if it has one.
      this.pause().catch(() => {
        this.#idles = false
        this.#clock.touch()
      })
      return
    }
    this.#stopsFor = why
    // A box that has ended by itself meanwhile needs no stop.
    this.stop().catch(ignore)
  }

  #started({ record }: { record: BoxRecord }): void {
    this.#record = record
    this.#ownership = 'ours'
    this.#handle.readNews()
    this.#states.tell({ state: 'running', previous: this.state })
  }

  async #turn(op: string, verb: string, state: BoxState, options: Cancellable | undefined): Promise<void> {
    const signal = readSignal(op, readOptions(op, options, ['signal']).signal)
    signal?.throwIfAborted()
    this.#check(op)
    if (this.state !== 'running' && this.state !== 'paused') throw this.#states.wrong(op)
    const turned = this.#command(op, verb, {}).then(() => this.#states.reached(op, [state, ...ENDED]))
    await this.#held(unlessAborted(turned, signal))
    if (this.state !== state) throw this.#states.wrong(op)
  }

  async #stop(op: string, graceMs: number, signal: AbortSignal | undefined): Promise<StopReason> {
    const stopped = this.#command(op, 'stop', { graceMs }).then(async (answer) => {
      await this.#states.reached(op, ENDED)
      return this.#states.stopReason ?? (answer as { reason?: StopReason } | undefined)?.reason ?? 'requested'
    })
    return this.#held(unlessAborted(stopped, signal))
  }

  /** Its executions end first: nobody would hear of them. */
  async #leave(op: string, graceMs: number): Promise<void> {
    if (this.state !== 'running') throw this.#states.wrong(op)
    await this.#held(this.#executions.endAll(graceMs))
    await this.#handle.command(op, 'leave', {})
    this.#letGo()
  }

  /** A box that ended before it got the command has stopped as well. */
  #command(op: string, verb: string, request: object): Promise<unknown> {
    return this.#handle.command(op, verb, request).catch((error) => {
      if (isEnd(this.state)) return undefined
      throw error instanceof HandleGone ? new RuntimeClosedError(op, true) : error
    })
  }

  async #remove(op: string, signal: AbortSignal | undefined): Promise<void> {
    if (this.state === 'removed') return
    const request = { box: this.#handle.id }
    try {
      await this.#home.calls.run(
        { name: op, op: 'box.remove', request, signal, context: { boxId: this.id } },
        this.remove,
      )
    } catch (error) {
      // An ephemeral one may be gone by itself.
      if (!(error instanceof BoxNotFoundError)) throw error
    }
    this.#handle.readNews()
    this.#states.tell({ state: 'removed', previous: this.state })
    await this.#held(this.#states.reached(op, ['removed']))
  }

  #changed({ state, previous, error }: Change): void {
    if (state === 'running') this.#clock.run()
    else if (state === 'paused') this.#clock.pause()
    else this.#clock.end()
    if (state !== 'paused') this.#idles = false
    const { id: boxId } = this
    const at = new Date()
    this.emit('state', state, previous)
    if (state === 'stopped') {
      const reason = this.#endedFor(this.#states.stopReason)
      this.#states.stopReason = reason
      this.#home.lifecycle({ type: state, boxId, at, reason })
      this.emit('stopped', reason)
    } else if (state === 'failed') {
      const failure = error
        ? (this.#handle.toError(error, 'box') as SluiceboxError)
        : new BoxLostError(`box ${boxId} ended`, { op: 'box', boxId })
      this.#home.lifecycle({ type: state, boxId, at, error: failure })
      this.emit('error', failure)
    } else this.#home.lifecycle({ type: state, boxId, at })
    if (state === 'removed') this.#letGo()
  }

  #endedFor(reason: StopReason = 'requested'): StopReason {
    const why = this.#stopsFor
    this.#stopsFor = undefined
    return why && reason === 'requested' ? why : reason
  }

  #letGo(): void {
    this.#clock.end()
    this.#home.forget(this)
    this.#handle.release()
    // Nobody would hear of another state. Whoever waits for its removal is told of that.
    if (this.state !== 'removed') this.#states.close(this.#disposed('box.waitForState'))
  }

  #check(op: string): void {
    this.#checkOpen(op)
    if (this.state === 'removed') throw this.#states.wrong(op)
    if (this.#handle.isReleased) throw this.#disposed(op)
  }

  #disposed(op: string): SluiceboxError {
    const message = `${op}: box ${this.id} was disposed of here`
    return new SluiceboxError('BOX_STATE', message, { op, boxId: this.id, hint: 'Get it again by its name.' })
  }

  #checkOpen(op: string): void {
    if (this.#home.isClosed) throw new RuntimeClosedError(op, false)
  }

  /** A promise that somebody may wait for keeps the process alive. */
  #held<T>(promise: Promise<T>): Promise<T> {
    const { drain } = this.#home
    drain.hold()
    return promise.finally(() => drain.release())
  }
}

const ignore = (): void => {}
