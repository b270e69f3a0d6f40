// The boxes of one runtime: creating, finding, listing and removing them, and ending them all.
import { isDeepStrictEqual } from 'node:util'
import { Box, type BoxHome, type Ownership } from './box.js'
import { BoxNotFoundError } from './box-errors.js'
import { toInfo } from './box-info.js'
import type { BoxCreateOptions, BoxFilter, BoxInfo } from './box-types.js'
import { RuntimeClosedError, SluiceboxError } from './errors.js'
import type {
  BoxResizeResult,
  Cancellable,
  Progress,
  Progressive,
  RebaseOptions,
  RebaseResult,
  Size,
} from './image-types.js'
import type { BoxRecord, HandleId } from './native.js'
import type { Call } from './operation.js'
import { bad, type RuntimeSettings, readBoolean, readOptions, readSignal, readText } from './options.js'
import { type CreateSettings, createKeys, parseConfig, readCreateBox, readFilter } from './options-box.js'
import { BoxPool, readPoolSize } from './pool.js'
import { unlessAborted } from './waiter.js'

export type CreateOptions = BoxCreateOptions & Cancellable & Progressive<'prepare' | 'boot' | 'agent'>

interface Opened {
  readonly handle: HandleId
  readonly record: BoxRecord
  readonly reused?: boolean
  /** Whether it was found to run. */
  readonly running: boolean
  readonly ownership?: Ownership
}

/** What virtual machines are made of here; an empty text is nothing. */
interface Means {
  readonly qemu: string
  readonly kernel: string
  readonly missing?: Lack
  /** Why none of them can start from the host's programs. */
  readonly noHostRoot?: Lack
  /** Why KVM is not used; empty: it would run guests. */
  readonly noKvm: string
  readonly noNamespaces?: Lack
}
interface Lack {
  readonly message: string
  readonly hint?: string
}

/** What close() gives processes to end by themselves. */
const CLOSE_GRACE_MS = 5000
/** And to the news of those that were killed. */
const FORCED_MS = 2000

type Above = (...args: never[]) => unknown

export class Boxes {
  readonly #path: string
  readonly #templates: string | undefined
  readonly #home: BoxHome
  readonly #open = new Map<HandleId, Box>()
  readonly #handles = new WeakMap<Box, HandleId>()
  readonly #pools = new Set<BoxPool>()
  /** Who may find a box of one name, or make it: by name. */
  readonly #turns = new Map<string, Promise<unknown>>()
  /** One at a time looks for a box that is not open here: two would have it twice. */
  #opening: Promise<unknown> = Promise.resolve()

  constructor(
    { home: path, templates }: Pick<RuntimeSettings, 'home' | 'templates'>,
    home: Omit<BoxHome, 'forget' | 'clone' | 'isClosed' | 'handles'> & { isClosed(): boolean },
  ) {
    this.#path = path
    this.#templates = templates
    this.#home = {
      ...home,
      handles: new Set(),
      get isClosed() {
        return home.isClosed()
      },
      forget: (box) => this.#forget(box),
      clone: (op, request, signal, above) => this.#make(op, 'box.clone', request, signal, undefined, above),
    }
  }

  get counts(): { running: number; total: number } {
    const boxes = [...this.#open.values()]
    return { running: boxes.filter(({ state }) => state === 'running').length, total: boxes.length }
  }

  /** `name`: the public method that asks for it. */
  create(options: CreateOptions | undefined, above: Above, name = 'create'): Promise<Box> {
    try {
      this.#check(name)
      const settings = readCreateBox(options, this.#home.isolation)
      const signal = readSignal('create', options?.signal)
      const onProgress = options?.onProgress as ((progress: Progress<never>) => void) | undefined
      const { ifExists, name: boxName } = settings.request
      if (ifExists === 'reuse')
        return this.#inTurn(boxName, signal, () => this.#reuse(settings, signal, onProgress, above))
      if (ifExists === 'replace')
        return this.#inTurn(boxName, signal, () => this.#replace(settings, signal, onProgress, above))
      return this.#create(settings, signal, onProgress, above, name)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async get(op: string, idOrName: string, options: Cancellable | undefined, above: Above): Promise<Box> {
    this.#check(op)
    const name = readText(op, 'idOrName', idOrName)
    const signal = readSignal(op, readOptions(op, options, ['signal']).signal)
    const others = this.#opening
    const opened = unlessAborted(others, signal).then(() => this.#get(op, name, signal, above))
    this.#opening = Promise.allSettled([others, opened])
    return this.#held(opened)
  }

  async #get(op: string, name: string, signal: AbortSignal | undefined, above: Above): Promise<Box> {
    signal?.throwIfAborted()
    const known = this.#find(name)
    if (known) return known
    const request = { home: this.#path, idOrName: name }
    const adopt = (value: unknown) => this.#adopt(value as Opened, false)
    return (await this.#home.calls.run({ name: op, op: 'box.open', request, signal, adopt }, above)) as Box
  }

  async has(idOrName: string, options: Cancellable | undefined, above: Above): Promise<boolean> {
    const op = 'has'
    this.#check(op)
    const name = readText(op, 'idOrName', idOrName)
    const signal = readSignal(op, readOptions(op, options, ['signal']).signal)
    const records = await this.#records(op, signal, above)
    return records.some((record) => record.id === name || record.name === name)
  }

  async list(filter: (BoxFilter & Cancellable) | undefined, above: Above): Promise<BoxInfo[]> {
    const op = 'list'
    this.#check(op)
    const { labels = {}, state, name, signal } = readFilter(filter)
    const wanted = Object.entries(labels)
    const records = await this.#records(op, signal, above)
    return records
      .filter((record) => name === undefined || record.name === name)
      .filter((record) => state === undefined || state.includes(record.state))
      .filter((record) => {
        const had = parseConfig(record).labels
        return wanted.every(([key, label]) => Object.hasOwn(had, key) && had[key] === label)
      })
      .map(toInfo)
  }

  async remove(
    idOrName: string,
    options: ({ force?: boolean } & Cancellable) | undefined,
    above: Above,
  ): Promise<void> {
    const op = 'remove'
    const { force, signal } = readOptions(op, options, ['force', 'signal'])
    const read = { force: readBoolean(op, 'force', force), signal: readSignal(op, signal) }
    const box = await this.get(op, idOrName, { signal: read.signal }, above)
    await box.remove(read)
  }

  async means(signal: AbortSignal | undefined, above: Above): Promise<Means> {
    const call = { name: 'doctor', op: 'box.means', request: {}, signal }
    return (await this.#home.calls.run(call, above)) as Means
  }

  pool(value: (CreateOptions & { size: number }) | undefined, above: Above): Promise<BoxPool> {
    const op = 'pool'
    try {
      this.#check(op)
      const { size, ...options } = readOptions(op, value, [...createKeys, 'size'])
      if (options.name !== undefined) throw bad(op, 'name', 'none: the boxes of a pool have no names', options.name)
      if (options.start === false) throw bad(op, 'start', 'true: a pool has running boxes', options.start)
      readCreateBox(options, this.#home.isolation)
      const pool = new BoxPool(readPoolSize(op, size), {
        create: () => this.create(options, above, op),
        held: (promise) => this.#held(promise),
        forget: (ended) => this.#pools.delete(ended),
      })
      this.#pools.add(pool)
      return this.#held(pool.fill()).then(() => pool)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  rebase(box: Box, options: RebaseOptions & { disk?: string }, above: Above): Promise<RebaseResult> {
    try {
      this.#check('rebase')
      const { disk, ...rest } = options ?? {}
      return box.rebase(readText('rebase', 'disk', disk ?? ''), rest, above)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  resize(
    box: Box,
    size: Size,
    options: ({ disk?: string } & Cancellable) | undefined,
    above: Above,
  ): Promise<BoxResizeResult> {
    try {
      this.#check('resize')
      if (!(box instanceof Box)) throw bad('resize', 'box', 'a box; of an image file it is images.resize', box)
      return box.resizeDisk(size, options, above)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** Stops every box, or leaves those that have a name: asks, and kills what is left in time for `timeoutMs`. */
  async close(timeoutMs: number, leave: boolean): Promise<void> {
    for (const pool of this.#pools) void pool.close()
    const asked = this.#endAll(Math.min(CLOSE_GRACE_MS, Math.floor(timeoutMs / 2)), leave)
    if (!(await within(asked, timeoutMs))) await within(this.#endAll(0), FORCED_MS)
  }

  /** Ends at once what came to be while close() waited for the rest. */
  async closeLate(): Promise<void> {
    await within(this.#endAll(0), FORCED_MS)
  }

  /** The core is gone: tells every execution and every pending call. */
  cutOff(): void {
    for (const box of this.#open.values()) box.cutOff(new RuntimeClosedError('close', true))
    for (const handle of this.#home.handles) handle.release()
  }

  #endAll(graceMs: number, leave = false): Promise<unknown> {
    return Promise.allSettled(Array.from(this.#open.values(), (box) => box.end(graceMs, leave)))
  }

  #create(
    { request }: CreateSettings,
    signal: AbortSignal | undefined,
    onProgress: Call['onProgress'],
    above: Above,
    name = 'create',
  ): Promise<Box> {
    return this.#make(name, 'box.create', this.#withTemplates(request), signal, onProgress, above)
  }

  /** Only machines have some. */
  #withTemplates(request: CreateSettings['request']): object {
    return request.isolation === 'vm' ? { ...request, templates: this.#templates } : request
  }

  async #make(
    name: string,
    op: string,
    request: object,
    signal: AbortSignal | undefined,
    onProgress: Call['onProgress'],
    above: Above,
  ): Promise<Box> {
    const adopt = (value: unknown) => {
      const box = this.#adopt(value as Opened, true)
      if (signal?.aborted) {
        // It was made before anybody could be told not to: nobody will own it.
        if (!(value as Opened).reused) this.#destroy(box)
        throw signal.reason
      }
      return box
    }
    const call = { name, op, signal, onProgress, adopt, abortGraceMs: 0 }
    return (await this.#home.boots.run({ ...call, request: { ...request, home: this.#path } }, above)) as Box
  }

  /** One that runs and that nobody owns. */
  async #left(name: string, signal: AbortSignal | undefined, above: Above): Promise<Box | undefined> {
    const records = await this.#records('create', signal, above)
    if (!records.some((record) => record.name === name && record.state === 'running')) return undefined
    const box = await this.get('create', name, { signal }, above)
    if (!box.isShared) return box
    await box[Symbol.asyncDispose]()
    return undefined
  }

  /** After those that asked for the same name before. */
  #inTurn(name: string | undefined, signal: AbortSignal | undefined, make: () => Promise<Box>): Promise<Box> {
    if (name === undefined) return make()
    const others = this.#turns.get(name)
    const made = others === undefined ? make() : unlessAborted(others, signal).then(make)
    const turn = Promise.allSettled([others, made]).then(() => {
      if (this.#turns.get(name) === turn) this.#turns.delete(name)
    })
    this.#turns.set(name, turn)
    return this.#held(made)
  }

  /** Starts it here: a box that was there already is handed over as it is. */
  async #reuse(
    { request }: CreateSettings,
    signal: AbortSignal | undefined,
    onProgress: Call['onProgress'],
    above: Above,
  ): Promise<Box> {
    const known = request.name === undefined ? undefined : this.#find(request.name)
    if (known && !known.isShared && (known.state === 'running' || known.state === 'paused')) {
      signal?.throwIfAborted()
      const differing = differences(request, known.record)
      if (differing.length > 0) throw differs(request, known.id, differing)
      if (request.start && known.state === 'paused') await known.start({ signal })
      return known
    }
    await known?.settled(false, signal)
    const changes = known?.changes
    let [reused, running] = [false, false]
    const call = {
      name: 'create',
      op: 'box.create',
      signal,
      onProgress,
      abortGraceMs: 0,
      request: { ...this.#withTemplates(request), start: false, home: this.#path },
      adopt: (value: unknown) => {
        const opened = value as Opened
        reused = opened.reused === true
        running = opened.running
        const differing = reused ? differences(request, opened.record) : []
        if (differing.length === 0) return this.#adopt(opened, !reused)
        if (!this.#open.has(opened.handle)) this.#letGo(this.#adopt(opened, false))
        throw differs(request, opened.record.id, differing)
      },
    }
    const box = (await this.#home.boots.run(call, above)) as Box
    // One that ran here before it was looked for, and was found not to, has ended; one that was started since runs.
    if (reused) await box.settled(!running && box === known && box.changes === changes, signal)
    if (!request.start || box.state === 'running') return box
    try {
      await box.start({ bootTimeoutMs: request.bootTimeoutMs, signal })
      return box
    } catch (error) {
      if (!reused) this.#destroy(box)
      throw error
    }
  }

  /** A box that is open here is ended by its own handle, which then knows of it; one that another process owns is spared. */
  async #replace(
    settings: CreateSettings,
    signal: AbortSignal | undefined,
    onProgress: Call['onProgress'],
    above: Above,
  ): Promise<Box> {
    const { name } = settings.request
    const known = name === undefined ? undefined : (this.#find(name) ?? (await this.#left(name, signal, above)))
    await known?.settled(false, signal)
    if (known?.isShared && !known.hasEnded) {
      const box = await this.#create(settings, signal, onProgress, above)
      // It had ended, and that was not heard here yet.
      this.#letGo(known)
      return box
    }
    if (known) await known.remove({ force: true, signal })
    return this.#create(settings, signal, onProgress, above)
  }

  /** One Box for each native handle. */
  #adopt({ handle, record, reused, ownership }: Opened, made: boolean): Box {
    const known = this.#open.get(handle)
    if (known) return known
    const box = new Box(handle, record, made ? 'ours' : (ownership ?? 'found'), this.#home)
    this.#open.set(handle, box)
    this.#handles.set(box, handle)
    if (made && !reused) {
      const event = { boxId: record.id, at: new Date() }
      this.#home.lifecycle({ type: 'created', ...event })
      if (record.state === 'running') {
        this.#home.lifecycle({ type: 'starting', ...event })
        this.#home.lifecycle({ type: 'running', ...event })
      }
    }
    return box
  }

  #forget(box: Box): void {
    const handle = this.#handles.get(box)
    if (handle !== undefined) this.#open.delete(handle)
  }

  #destroy(box: Box): void {
    box.remove({ force: true }).catch(warn)
  }

  #letGo(box: Box): void {
    box[Symbol.asyncDispose]().catch(warn)
  }

  #find(idOrName: string): Box | undefined {
    for (const box of this.#open.values()) if (box.id === idOrName || box.name === idOrName) return box
    return undefined
  }

  /** What this runtime knows of its own boxes is newer than their records. */
  async #records(op: string, signal: AbortSignal | undefined, above: Above): Promise<BoxRecord[]> {
    const request = { home: this.#path }
    const records = (await this.#home.calls.run({ name: op, op: 'box.list', request, signal }, above)) as BoxRecord[]
    return records.map((record) => ({ ...record, state: this.#find(record.id)?.state ?? record.state }))
  }

  /** A promise that somebody may wait for keeps the process alive. */
  #held<T>(promise: Promise<T>): Promise<T> {
    const { drain } = this.#home
    drain.hold()
    return promise.finally(() => drain.release())
  }

  #check(op: string): void {
    if (this.#home.isClosed) throw new RuntimeClosedError(op, false)
  }
}

function differs({ name }: CreateSettings['request'], boxId: string, differing: string[]): SluiceboxError {
  const message = `create: the box named ${JSON.stringify(name)} differs in ${differing.join(', ')}`
  const hint = "Ask for the same configuration, get() it as it is, or use another name or ifExists: 'replace'."
  return new SluiceboxError('BOX_EXISTS', message, { op: 'create', boxId, hint })
}

/** The options in which a box is not what was asked for. */
function differences(request: CreateSettings['request'], record: BoxRecord): string[] {
  const had = parseConfig(record)
  const wanted = parseConfig({ ...record, config: request.config })
  const configs = (['env', 'cwd', 'user', 'labels', 'clock'] as const).filter(
    (key) => !isDeepStrictEqual(wanted[key], had[key]),
  )
  const isolations = request.isolation === record.isolation ? [] : ['isolation']
  // The rest is the snapshot's.
  if (wanted.snapshot || had.snapshot)
    return [
      ...isolations,
      ...(isDeepStrictEqual(wanted.snapshot, had.snapshot) ? [] : ['rootfs']),
      ...(request.ephemeral === record.ephemeral ? [] : ['ephemeral']),
      ...configs,
    ]
  const plain = ['ephemeral', 'memory', 'vcpus', 'maxProcesses', 'storage'] as const
  return [
    ...isolations,
    ...(isDeepStrictEqual(request.rootfs, record.rootfs) && isDeepStrictEqual(request.disks, named(record))
      ? []
      : ['rootfs']),
    ...plain.filter((key) => request[key] !== record[key]),
    ...configs,
  ]
}

function warn(error: Error): void {
  if (!(error instanceof BoxNotFoundError || error instanceof RuntimeClosedError)) process.emitWarning(error)
}

/** Disks as they were asked for: one that was made from a directory or from the host's programs was not. */
const named = ({ rootfs, disks }: BoxRecord) =>
  disks?.slice(rootfs.kind === 'disk' ? 0 : 1).map(({ overlayPath: _, ...asked }) => asked)

async function within(work: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  const inTime = await Promise.race([work.then(() => true), late])
  clearTimeout(timer)
  return inTime
}
