// The executions in one box: spawning them, knowing them by their ids, and their ends.

import { SluiceboxError } from './errors.js'
import { escapeCommand } from './escape.js'
import type { ListenerFailure } from './events.js'
import { execCwd, execRequest } from './exec-request.js'
import type { Bytes, ExecutionInfo, RunResult } from './exec-types.js'
import { Execution, type ExecutionHome } from './execution.js'
import type { HandleId } from './native.js'
import type { Call } from './operation.js'
import type { BoxConfig } from './options-box.js'
import type { ExecSettings, RunSettings } from './options-exec.js'
import { collect } from './run.js'

type Above = (...args: never[]) => unknown

/** What they need of their box. */
export interface ExecutionsHome extends Omit<ExecutionHome, 'ended'> {
  readonly handle: HandleId
  /** Whether streams are framed instead of passed, as a VM's are. */
  readonly framed: boolean
  readonly config: BoxConfig
  listenerFailed: ListenerFailure
  /** Throws when the box runs no programs; resolves once it does. undefined: it does now. */
  ready(op: string): Promise<void> | undefined
  submit(call: Call, above: Above): Promise<unknown>
  /** One more is there, or is about to be; one less. */
  entered(): void
  left(): void
  /** Its promise is about to settle. */
  spawned(execution: Execution): void
}

export class BoxExecutions {
  readonly #home: ExecutionsHome
  readonly #live = new Map<string, Execution>()
  /** Those being spawned too. */
  readonly #ids = new Set<string>()
  readonly #executionHome: ExecutionHome

  constructor(home: ExecutionsHome) {
    this.#home = home
    const { drain, errorNames, handles, boxId, listenerFailed } = home
    const ended = (execution: Execution) => this.#forget(execution)
    this.#executionHome = { drain, errorNames, handles, boxId, listenerFailed, ended }
  }

  /** Those whose end was not told yet. */
  infos(): ExecutionInfo[] {
    return [...this.#live.values()].map((execution) => execution.info())
  }

  /** Resolves when the end of each was told. undefined: there is none. */
  allEnded(): Promise<unknown> | undefined {
    if (this.#live.size === 0) return undefined
    return Promise.all(Array.from(this.#live.values(), (execution) => execution.boxEnded()))
  }

  /** Asks each to end, and kills what is left after that time. Resolves when all have. */
  async endAll(graceMs: number): Promise<void> {
    const ends = Array.from(this.#live.values(), async (execution) => {
      await execution.kill(undefined, { forceAfterMs: graceMs })
      await execution.wait()
    })
    await Promise.allSettled(ends)
  }

  cutOff(lost: (op: string) => SluiceboxError): void {
    for (const execution of [...this.#live.values()]) execution.cutOff(lost('execution'))
  }

  run(op: string, read: () => RunSettings, above: Above): Promise<RunResult<string | Bytes>> {
    try {
      const settings = read()
      const { boxId, config, listenerFailed } = this.#home
      const place = { op, boxId, cwd: execCwd(settings, config), listenerFailed }
      return this.spawn(op, settings, above).then((execution) => collect(execution, settings, place))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** Throws at once what is known at once. */
  spawn(op: string, settings: ExecSettings, above: Above): Promise<Execution> {
    const { id, argv, signal } = settings
    const { boxId, config, framed, handle } = this.#home
    if (signal?.aborted) throw signal.reason
    const soon = this.#home.ready(op)
    if (soon) return soon.then(() => this.spawn(op, settings, above))
    if (this.#ids.has(id))
      throw new SluiceboxError('EXEC_EXISTS', `${op}: box ${boxId} has a live execution ${id}`, { op, boxId })
    const request = { box: handle, ...execRequest(settings, config, framed) }
    const context = {
      boxId,
      get result() {
        return { id, argv, escapedCommand: escapeCommand(argv), cwd: execCwd(settings, config) }
      },
    }
    const adopt = (native: unknown) => this.#adopt(native as { handle: HandleId; pid: number }, settings)
    this.#ids.add(id)
    this.#home.entered()
    const call = { name: op, op: 'exec', request, signal, adopt, context, abortGraceMs: 0 }
    const spawned = this.#home.submit(call, above) as Promise<Execution>
    return spawned.catch((error) => {
      if (!this.#live.has(id)) this.#free(id)
      throw error
    })
  }

  #adopt(native: { handle: HandleId; pid: number }, settings: ExecSettings): Execution {
    const execution = new Execution(native, settings, this.#executionHome)
    if (settings.signal?.aborted) {
      void execution[Symbol.asyncDispose]()
      throw settings.signal.reason
    }
    this.#live.set(settings.id, execution)
    this.#home.spawned(execution)
    return execution
  }

  #forget(execution: Execution): void {
    if (this.#live.get(execution.id) !== execution) return
    this.#live.delete(execution.id)
    this.#free(execution.id)
  }

  #free(id: string): void {
    if (this.#ids.delete(id)) this.#home.left()
  }
}
