// One process in a box: its output by events, streams, iterators and lines; its stdin, its signals, its end.
import type { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import { inspect } from 'node:util'
import { ExecError } from './box-errors.js'
import { type End, Ending } from './ending.js'
import { InvalidArgumentError, SluiceboxError } from './errors.js'
import { escapeCommand } from './escape.js'
import { type ListenerFailure, TypedEvents } from './events.js'
import type { Argv, ExecStdin, ExecutionEvent, ExecutionEvents, ExecutionInfo, ExitInfo, Signal } from './exec-types.js'
import { toExitInfo } from './exit-info.js'
import { Handle, HandleGone, type HandleOwner, type HandleSurroundings } from './handle.js'
import type { Cancellable } from './image-types.js'
import { type HandleId, LANE, type News } from './native.js'
import { readBoolean, readChoice, readOptions, readSignal } from './options.js'
import { type ExecSettings, readForce, readSignalName, readTerminalSize, readWait } from './options-exec.js'
import { Output, type OutputHooks } from './output.js'
import { events, type FromLine, lines, textOf } from './readers/iterators.js'
import { toReadable, toWebStream } from './readers/streams.js'
import { signalNumber } from './signals.js'
import { feedFrom } from './sources.js'
import { Stdin } from './stdin.js'
import { matcher, waitForLine } from './wait-for-line.js'

/** What an execution needs of its box. */
export interface ExecutionHome extends HandleSurroundings {
  readonly boxId: string
  listenerFailed: ListenerFailure
  /** Its end was told. */
  ended(execution: Execution): void
}

interface Inside {
  readonly outputs: Readonly<Record<'stdout' | 'stderr', Output>>
  readonly stdinFailure: { readonly reason: unknown } | undefined
  /** Whether its signal was aborted before it ended. */
  readonly wasAborted: boolean
  /** The end, once it was told: the callbacks of run() have all been awaited then. */
  told(): Promise<ExitInfo>
}

type From = 'stdout' | 'stderr' | 'all'
/** A scope that is left must end, whatever the process makes of its signal. */
const DISPOSE_FORCE_MS = 5000

const FROM = ['stdout', 'stderr', 'all'] as const

/** Gives back the handle of an execution that ended and was collected while bytes that nobody read were held for it. */
const collected = new FinalizationRegistry<Handle>((handle) => handle.release())

export class Execution extends TypedEvents<ExecutionEvents> implements AsyncDisposable, AsyncIterable<ExecutionEvent> {
  /** The caller's, or made up. */
  readonly id: string
  /** As seen in the box. */
  readonly pid: number
  readonly argv: Argv
  /** Whether stdin, stdout and stderr are a terminal. */
  readonly tty: boolean
  readonly stdin: ExecStdin
  readonly #settings: ExecSettings
  readonly #home: ExecutionHome
  readonly #handle: Handle
  /** Held here because the handle forgets it once the process has ended. */
  readonly #owner: HandleOwner
  readonly #outputs: Record<'stdout' | 'stderr', Output>
  readonly #ending: Ending
  readonly #input: Stdin
  readonly #startedAt = new Date()
  readonly #gone = new AbortController()
  readonly #toDiscard = new Set<number>()
  readonly #listeners = { stdout: this.#listener('stdout'), stderr: this.#listener('stderr') }
  #streams: { stdout?: Readable; stderr?: Readable } = {}
  #stdinFailure: { readonly reason: unknown } | undefined
  #wasAborted = false
  #endSeen = false
  #moves = 0

  /** Box.exec() makes them. @internal */
  constructor(native: { handle: HandleId; pid: number }, settings: ExecSettings, home: ExecutionHome) {
    super('execution', home.listenerFailed)
    this.id = settings.id
    this.pid = native.pid
    this.argv = settings.argv
    this.tty = settings.tty !== undefined
    this.#settings = settings
    this.#home = home
    this.#owner = { readable: (lane) => this.#readable(lane), news: (news) => this.#news(news) }
    this.#handle = new Handle(native.handle, 'execution', home, this.#owner, { boxId: home.boxId })
    home.drain.hold()
    const hooks: OutputHooks = {
      core: home.drain.core,
      handle: native.handle,
      highWaterMark: settings.highWaterMark,
      later: (work) => this.#handle.later(work),
      moved: () => this.#moved(),
      discard: (lane) => this.#toDiscard.add(lane),
    }
    this.#outputs = {
      stdout: new Output('stdout', LANE.stdout, settings.stdout === 'pipe', hooks),
      stderr: new Output('stderr', LANE.stderr, settings.stderr === 'pipe', hooks),
    }
    this.#ending = new Ending({
      isDelivered: () => this.#outputs.stdout.isSettled && this.#outputs.stderr.isSettled,
      progress: () => this.#moves,
      tell: (end, heard) => this.#tell(end, heard),
      over: () => home.drain.release(),
    })
    this.#input = new Stdin(this.#handle, settings.stdin.kind === 'pipe', home.boxId)
    this.stdin = this.#input
    this.#feed()
    settings.signal?.addEventListener('abort', this.#onAbort, { once: true })
    if (settings.signal?.aborted) this.#onAbort()
  }

  /** Set once the end was told. */
  get exit(): ExitInfo | undefined {
    return this.#ending.exit
  }

  /** Bytes of each stream that readers were given. */
  get position(): { readonly stdout: number; readonly stderr: number } {
    return { stdout: this.#outputs.stdout.position, stderr: this.#outputs.stderr.position }
  }

  /** Created on first access; it begins to read when it is first read from. */
  get stdout(): Readable {
    this.#streams.stdout ??= toReadable(this.#outputs.stdout)
    return this.#streams.stdout
  }

  /** The same; on a terminal it is empty, for all output is stdout. */
  get stderr(): Readable {
    this.#streams.stderr ??= toReadable(this.#outputs.stderr)
    return this.#streams.stderr
  }

  /** Lines without their `\n` or `\r\n`, the unterminated last one too. Default: of stdout. */
  lines(options?: { from?: 'stdout' | 'stderr'; preserveNewlines?: boolean } & Cancellable): AsyncIterable<string>
  lines(options: { from: 'all'; preserveNewlines?: boolean } & Cancellable): AsyncIterable<FromLine>
  lines(options?: { from?: From; preserveNewlines?: boolean } & Cancellable): AsyncIterable<string | FromLine> {
    const op = 'execution.lines'
    const read = readOptions(op, options, ['from', 'preserveNewlines', 'signal'])
    const from = readChoice(op, 'from', read.from, FROM) ?? 'stdout'
    const preserve = readBoolean(op, 'preserveNewlines', read.preserveNewlines) ?? false
    const found = lines(this.#of(from), preserve, readSignal(op, read.signal))
    return from === 'all' ? found : textOf(found)
  }

  /** Default: of stdout. */
  readableStream(options?: { from?: From }): ReadableStream<Uint8Array> {
    const op = 'execution.readableStream'
    const { from } = readOptions(op, options, ['from'])
    return toWebStream(this.#of(readChoice(op, 'from', from, FROM) ?? 'stdout'))
  }

  /** Every chunk as it comes, then the exit. Throws when the process was lost. Leaving the loop leaves the process alone. */
  [Symbol.asyncIterator](): AsyncIterator<ExecutionEvent, void, undefined> {
    return events(this.#of('all'), () => this.wait())
  }

  /**
   * The end of the process, after its output went to the readers. One that takes nothing for a second is not waited for. Aborting and
   * `timeoutMs` (WAIT_TIMEOUT) end the wait only. Rejects when the process was lost.
   */
  wait(options?: { timeoutMs?: number } & Cancellable): Promise<ExitInfo> {
    try {
      const { timeoutMs, signal } = readWait('execution.wait', options)
      return this.#ending.wait('execution.wait', timeoutMs, signal)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * The first line that has the text, or matches the pattern, in what no reader has taken yet and what comes. Takes nothing from
   * readers: up to `highWaterMark` bytes that only it has seen are kept for the first of them. Default: of both streams.
   */
  waitForLine(pattern: string | RegExp, options?: { from?: From; timeoutMs?: number } & Cancellable): Promise<string> {
    const op = 'execution.waitForLine'
    try {
      if (typeof pattern !== 'string' && !(pattern instanceof RegExp))
        throw new InvalidArgumentError('pattern', `expected a string or a RegExp, got ${inspect(pattern)}`, op)
      const { timeoutMs, signal, options: read } = readWait(op, options, ['from'])
      const outputs = this.#of(readChoice(op, 'from', read.from, FROM) ?? 'all')
      const ended = () =>
        this.#failure('EXEC_FAILED', op, `its output ended without a line that matches ${inspect(pattern)}`)
      return waitForLine({ outputs, matches: matcher(pattern), ended, timeoutMs, signal })
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Sends a signal (default: `killSignal`) to the process and its group. True if it reached a live process. With the default signal,
   * SIGKILL follows after `forceKillAfterMs`; with another only if `forceAfterMs` is given.
   */
  kill(signal?: Signal, options?: { forceAfterMs?: number | false; scope?: 'group' | 'process' }): Promise<boolean> {
    const op = 'execution.kill'
    try {
      const name = readSignalName(op, 'signal', signal) ?? this.#settings.killSignal
      const read = readOptions(op, options, ['forceAfterMs', 'scope'])
      const usual = name === this.#settings.killSignal ? this.#settings.forceKillAfterMs : false
      const force = readForce(op, 'forceAfterMs', read.forceAfterMs) ?? usual
      const scope = readChoice(op, 'scope', read.scope, ['group', 'process']) ?? 'group'
      if (this.#ending.hasEnded) return Promise.resolve(false)
      const request = { signal: signalNumber(name), scope, forceAfterMs: force === false ? -1 : force }
      return this.#handle.command(op, 'kill', request).then((answer) => answer === true, isGone)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** Of the terminal; its foreground group gets SIGWINCH. Without a terminal UNSUPPORTED. */
  async resize(size: { cols: number; rows: number }): Promise<void> {
    const op = 'execution.resize'
    const request = readTerminalSize(op, size)
    if (!this.tty) throw this.#failure('UNSUPPORTED', op, 'it has no terminal', 'Give exec() the option tty.')
    if (this.#ending.hasEnded) throw this.#failure('EXEC_NOT_FOUND', op, 'it has ended')
    await this.#handle.command(op, 'resize', request).catch((error) => {
      throw error instanceof HandleGone ? this.#failure('EXEC_NOT_FOUND', op, 'it has ended') : error
    })
  }

  /** Readers get nothing more until resume(); once the lanes are full the process waits. */
  pause(): this {
    for (const output of this.#of('all')) output.pause()
    return this
  }

  resume(): this {
    for (const output of this.#of('all')) output.resume()
    return this
  }

  /** Ends the process if it lives (a terminal is hung up), lets the readers go, and waits for the end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#letGo(this.#failure('EXEC_NOT_FOUND', 'execution.dispose', 'it was disposed of'))
    if (!this.#ending.hasEnded) {
      const { forceKillAfterMs } = this.#settings
      const forceAfterMs = forceKillAfterMs === false ? DISPOSE_FORCE_MS : forceKillAfterMs
      await this.kill(this.tty ? 'SIGHUP' : undefined, { forceAfterMs }).catch(ignore)
    }
    await this.#ending.wait('execution.dispose').then(ignore, ignore)
    this.#handle.release()
  }

  /** @internal */
  info(): ExecutionInfo {
    const { id, pid, argv, tty } = this
    return { id, pid, argv, tty, startedAt: this.exit?.startedAt ?? this.#startedAt, running: !this.#ending.hasEnded }
  }

  /** What run() is made of. @internal */
  get inside(): Inside {
    return {
      outputs: this.#outputs,
      stdinFailure: this.#stdinFailure,
      wasAborted: this.#wasAborted,
      told: () => this.#ending.told('box.run'),
    }
  }

  /** Its box has ended: the end is told now, also to a reader that stalls. Resolves when that was done. @internal */
  async boxEnded(): Promise<void> {
    await this.#ending.wait('box.stop').then(ignore, ignore)
    this.#ending.tellNow()
  }

  /** Its runtime is closed: whatever was not told by now is told. @internal */
  cutOff(error: SluiceboxError): void {
    try {
      // What is known of its true end counts.
      this.#handle.readNews()
    } catch {
      // The core is gone, and what it knew.
    }
    this.#processEnded({ error })
    this.#letGo(error)
    this.#ending.tellNow()
    this.#handle.release()
  }

  /** A first listener begins to read, and the last one's leaving ends it. @internal */
  protected override listenersChanged(event: string): void {
    if (event !== 'stdout' && event !== 'stderr') return
    const [output, reader] = [this.#outputs[event], this.#listeners[event]]
    if (this.listenerCount(event) === 0) output.detach(reader)
    else output.attach(reader)
  }

  #listener(event: 'stdout' | 'stderr') {
    return { ready: true, idle: true, chunk: (chunk: Buffer) => void this.emit(event, chunk), end: () => {} }
  }

  #of(from: From): readonly Output[] {
    const { stdout, stderr } = this.#outputs
    return from === 'all' ? [stdout, stderr] : [this.#outputs[from]]
  }

  #feed(): void {
    const { stdin, tty } = this.#settings
    // A terminal has one line both ways: without input it is told so by its EOF character.
    if (stdin.kind === 'ignore' && tty) void this.#input.finish().catch(ignore)
    if (stdin.kind === 'bytes') {
      this.#input.feed(stdin.bytes, false).catch(ignore)
      this.#input.finish().catch(ignore)
    }
    if (stdin.kind !== 'source') return
    // Not in the pass that brings the execution: a source is the caller's own code.
    const feed = () => feedFrom(stdin.source, this.#input, this.#gone.signal)
    this.#handle.later(() => void feed().catch((reason) => this.#sourceFailed(reason)))
  }

  #sourceFailed(reason: unknown): void {
    this.#stdinFailure = { reason }
    this.kill().catch(ignore)
    if (this.#settings.isRun) return
    const text = `${this.#named()} is killed, for the source of its stdin failed: ${inspect(reason, { depth: 0 })}`
    process.emitWarning(text, { type: 'SluiceboxWarning' })
  }

  readonly #onAbort = (): void => {
    this.#wasAborted = true
    this.kill().catch(ignore)
  }

  #readable(lane: number): void {
    if (lane === LANE.stdout) this.#outputs.stdout.readable()
    else if (lane === LANE.stderr) this.#outputs.stderr.readable()
  }

  #news(news: News): void {
    if (news.kind === 'exit') this.#processEnded({ exit: toExitInfo(news) }, news.ownStdout, news.ownStderr)
    else if (news.kind === 'lost') this.#processEnded({ error: this.#toLost(news.error) })
    else if (news.kind === 'stalled') this.#stalled(news.lane)
  }

  #processEnded(end: End, ownStdout?: number, ownStderr?: number): void {
    if (this.#endSeen) return
    this.#endSeen = true
    this.#settings.signal?.removeEventListener('abort', this.#onAbort)
    this.#input.stop()
    this.#gone.abort()
    const error = 'error' in end ? end.error : undefined
    this.#outputs.stdout.processEnded(ownStdout, error)
    this.#outputs.stderr.processEnded(ownStderr, error)
    this.#ending.processEnded(end)
    this.#moved()
  }

  #moved(): void {
    this.#moves++
    this.#ending.check()
    const isSpent = this.#outputs.stdout.isSpent && this.#outputs.stderr.isSpent
    if (this.#ending.isTold && isSpent) {
      // A write that the process took before it ended is still to be told so.
      this.#handle.releaseWhenAnswered()
      return
    }
    for (const lane of this.#toDiscard) this.#handle.command('execution', 'discard', { lane }).catch(ignore)
    this.#toDiscard.clear()
  }

  #tell(end: End, heard: boolean): void {
    this.#home.ended(this)
    if ('exit' in end) this.emit('exit', end.exit)
    else if (!this.emit('error', end.error) && !heard) process.emitWarning(end.error)
    // Bytes that nobody read stay for whoever comes; who never comes is no reason to keep them.
    this.#handle.weaken()
    collected.register(this, this.#handle)
  }

  #letGo(error: Error): void {
    for (const output of this.#of('all')) output.abandon(error)
    this.#moved()
  }

  #stalled(lane: number): void {
    const output = lane === LANE.stdout ? this.#outputs.stdout : this.#outputs.stderr
    if (output.hasReader) return
    const text = `${this.#named()} waits because nobody reads its ${output.name} (${this.#settings.highWaterMark} bytes are held): read it, or give exec() ${output.name}: 'ignore'`
    process.emitWarning(text, { type: 'SluiceboxWarning', code: 'SLUICEBOX_STALLED' })
  }

  #toLost(error: Parameters<Handle['toError']>[0]): SluiceboxError {
    return this.#handle.toError(error, 'execution') as SluiceboxError
  }

  #named(): string {
    return `execution ${this.id} (${escapeCommand(this.argv)}) of box ${this.#home.boxId}`
  }

  #failure(code: 'EXEC_FAILED' | 'EXEC_NOT_FOUND' | 'UNSUPPORTED', op: string, what: string, hint?: string) {
    const { boxId } = this.#home
    const message = `${op}: ${this.#named()}: ${what}`
    if (code === 'UNSUPPORTED') return new SluiceboxError(code, message, { op, boxId, hint })
    const { id, argv } = this
    return new ExecError(code, message, { op, boxId, hint, result: { id, boxId, argv, ...this.exit } })
  }
}

const ignore = (): void => {}

/** The handle was released: the process had ended. */
function isGone(error: unknown): boolean {
  if (error instanceof HandleGone) return false
  throw error
}
