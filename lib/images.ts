// images.*: checks the arguments, submits the work, gives native results their public shape.

import { RuntimeClosedError } from './errors.js'
import { type NativeImage, OpenImage, type RunHandle } from './image-handle.js'
import type {
  CheckReport,
  CommitOptions,
  CommitResult,
  CompareOptions,
  CompareResult,
  ConvertIntoOptions,
  ConvertOptions,
  ConvertResult,
  ImageHandle,
  ImageInfo,
  ImageOp,
  ImageSnapshot,
  ImageSnapshots,
  Images,
  MapExtent,
  MapOptions,
  MeasureOptions,
  MeasureResult,
  OpenOptions,
  RebaseOptions,
  RebaseResult,
  ResizeOptions,
  Size,
  SnapshotsOptions,
} from './image-types.js'
import type { Call } from './operation.js'
import { readFunction, readSignal } from './options.js'
import {
  readCheck,
  readCommit,
  readCompare,
  readConvert,
  readCreate,
  readInfo,
  readMap,
  readMeasure,
  readOpen,
  readRebase,
  readResize,
  readSnapshotChange,
} from './options-images.js'

/** Runs one call, telling the runtime's listeners of its start and end. */
export type RunImage = (op: ImageOp, path: string, call: Call, above: (...args: never[]) => unknown) => Promise<unknown>

type Request = { readonly path: string }

/** Of a map in one operation: few at first, for who wants only those; then as many as make opening the image cheap beside them. */
const FIRST_EXTENTS = 1024
const MOST_EXTENTS = 65_536
/** Numbers that an extent comes as. */
const ROW = 5

export class ImageOperations implements Images {
  readonly #run: RunImage
  readonly #runHandle: RunHandle
  readonly #open = new Set<WeakRef<OpenImage>>()
  readonly #collected = new FinalizationRegistry<WeakRef<OpenImage>>((reference) => this.#open.delete(reference))
  #closing = false

  constructor(run: RunImage, runHandle: RunHandle) {
    this.#run = run
    this.#runHandle = runHandle
  }

  async open(path: string, options?: OpenOptions): Promise<ImageHandle> {
    const op = 'images.open'
    const request = readOpen(path, options)
    const adopt = (native: unknown) => {
      const image = native as NativeImage
      if (!this.#closing) return this.#keep(new OpenImage(request.path, image, this.#runHandle))
      // Nothing was written to it: what it holds goes at once.
      image.release()
      throw new RuntimeClosedError(op, true)
    }
    if (this.#closing) throw new RuntimeClosedError(op, false)
    const call: Call = { name: op, op: 'open', request, signal: readSignal(op, options?.signal), adopt }
    return (await this.#runHandle(call, this.open)) as ImageHandle
  }

  /** For the runtime's close(): nothing, when none is open. Never rejects. @internal */
  closeAll(): Promise<void> | undefined {
    this.#closing = true
    if (this.#open.size === 0) return undefined
    return Promise.allSettled([...this.#open].map((reference) => reference.deref()?.close())).then(() => {})
  }

  /** Until it is closed, or nobody has it any more: then its native half closes as it is collected. */
  #keep(image: OpenImage): OpenImage {
    const reference = new WeakRef(image)
    this.#open.add(reference)
    this.#collected.register(image, reference, reference)
    image.onClose = () => {
      this.#open.delete(reference)
      this.#collected.unregister(reference)
    }
    return image
  }

  create(path: string, options: Parameters<Images['create']>[1]): Promise<ImageInfo> {
    return this.#submit('create', 'images.create', () => readCreate(path, options), options, this.create, toInfo)
  }

  info(path: string, options?: Parameters<Images['info']>[1]): Promise<ImageInfo> {
    return this.#submit('info', 'images.info', () => readInfo(path, options), options, this.info, toInfo)
  }

  check(path: string, options?: Parameters<Images['check']>[1]): Promise<CheckReport> {
    return this.#submit('check', 'images.check', () => readCheck(path, options), options, this.check, toReport)
  }

  rebase(path: string, options: RebaseOptions): Promise<RebaseResult> {
    return this.rebaseAs('images.rebase', path, options, this.rebase)
  }

  commit(path: string, options?: CommitOptions): Promise<CommitResult> {
    const startedAt = performance.now()
    return this.#submit(
      'commit',
      'images.commit',
      () => readCommit(path, options),
      options,
      this.commit,
      (native) => ({ ...(native as CommitResult), durationMs: performance.now() - startedAt }),
    )
  }

  resize(path: string, size: Size, options?: ResizeOptions): Promise<ImageInfo> {
    return this.#submit('resize', 'images.resize', () => readResize(path, size, options), options, this.resize, toInfo)
  }

  convert(
    source: string | readonly string[],
    target: string,
    options: ConvertOptions | ConvertIntoOptions,
  ): Promise<ConvertResult> {
    const read = () => readConvert(source, target, options)
    return this.#submit('convert', 'images.convert', read, options, this.convert, toInfo)
  }

  compare(a: string, b: string, options?: CompareOptions): Promise<CompareResult> {
    const read = () => readCompare(a, b, options)
    return this.#submit('compare', 'images.compare', read, options, this.compare, (native) => native as CompareResult)
  }

  /** Not async itself: what is wrong with the arguments is told by the call, not by the first extent. */
  map(path: string, options?: MapOptions): AsyncIterable<MapExtent> {
    return this.#parts(readMap(path, options))
  }

  measure(options: MeasureOptions): Promise<MeasureResult> {
    const read = () => readMeasure(options)
    return this.#submit('measure', 'images.measure', read, options, this.measure, (native) => native as MeasureResult)
  }

  async *#parts({ signal, ...whole }: ReturnType<typeof readMap>): AsyncGenerator<MapExtent, void, undefined> {
    let start: number | undefined = whole.start
    for (let mostExtents = FIRST_EXTENTS; start !== undefined; mostExtents = Math.min(mostExtents * 4, MOST_EXTENTS)) {
      const from: number = start
      const length = whole.length === undefined ? undefined : whole.length - (from - whole.start)
      const part: MapPart = await this.#submit(
        'map',
        'images.map',
        () => ({ ...whole, start: from, length, mostExtents }),
        { signal },
        this.map,
        (native) => native as MapPart,
      )
      // Delegating to an iterator would cost several promises an extent.
      for (let at = 0; at < part.rows.length; at += ROW) yield extentOf(part.rows, at)
      start = part.next
    }
  }

  readonly snapshots: ImageSnapshots = {
    list: (path, options) =>
      this.#submit(
        'info',
        'images.snapshots.list',
        () => readInfo(path, options),
        options,
        this.snapshots.list,
        (native) => toInfo(native).snapshots,
      ),
    create: (path, name, options) => this.#changeSnapshots('create', path, name, options, this.snapshots.create),
    apply: (path, name, options) => this.#changeSnapshots('apply', path, name, options, this.snapshots.apply),
    remove: (path, name, options) => this.#changeSnapshots('remove', path, name, options, this.snapshots.remove),
  }

  #changeSnapshots(
    change: 'create' | 'apply' | 'remove',
    path: string,
    name: string,
    options: SnapshotsOptions | undefined,
    above: (...args: never[]) => unknown,
  ): Promise<void> {
    const op = `images.snapshots.${change}`
    const read = () => readSnapshotChange(op, change, path, name, options)
    return this.#submit('snapshot', op, read, options, above, () => {})
  }

  /** The same under the name that the caller used. @internal */
  rebaseAs(
    name: string,
    path: string,
    options: RebaseOptions,
    above: (...args: never[]) => unknown,
  ): Promise<RebaseResult> {
    const startedAt = performance.now()
    return this.#submit(
      'rebase',
      name,
      () => readRebase(name, path, options),
      options,
      above,
      // From the request: the caller may have changed its options since.
      (native, request) => {
        const { path, unsafe, dryRun } = request as ReturnType<typeof readRebase>
        const durationMs = performance.now() - startedAt
        return { ...(native as RebaseResult), path, mode: unsafe ? 'unsafe' : 'safe', dryRun, durationMs }
      },
    )
  }

  /** Not async itself: the operation is made in the caller's own async context, and its arguments are read before anything runs. */
  #submit<T>(
    op: ImageOp,
    name: string,
    read: () => object,
    options: object | undefined,
    above: (...args: never[]) => unknown,
    shape: (native: unknown, request: Request) => T,
  ): Promise<T> {
    try {
      const request = read() as Request
      const { signal, onProgress } = (options ?? {}) as Record<string, unknown>
      const call: Call = {
        name,
        op,
        request,
        signal: readSignal(name, signal),
        onProgress: readFunction(name, 'onProgress', onProgress),
      }
      return this.#run(op, request.path, call, above).then((native) => shape(native, request))
    } catch (error) {
      return Promise.reject(error)
    }
  }
}

type NativeInfo = Omit<ImageInfo, 'snapshots' | 'chain'> & {
  snapshots: (Omit<ImageSnapshot, 'at'> & { seconds: number; nanoseconds: number })[]
  chain?: NativeInfo[]
}

function toInfo(native: unknown): ImageInfo {
  const { chain, snapshots, ...rest } = native as NativeInfo
  return {
    ...rest,
    ...(chain && { chain: chain.map(toInfo) }),
    snapshots: snapshots.map(({ seconds, nanoseconds, ...snapshot }) => ({
      ...snapshot,
      at: new Date(seconds * 1000 + nanoseconds / 1e6),
    })),
  }
}

type MapPart = { readonly rows: Float64Array; readonly next?: number }

/** Of rows of start, length, depth, flags and offset, the one that begins at `at`. */
function extentOf(rows: Float64Array, at: number): MapExtent {
  const [flags, offset] = [rows[at + 3] as number, rows[at + 4] as number]
  const extent: MapExtent = {
    start: rows[at] as number,
    length: rows[at + 1] as number,
    depth: rows[at + 2] as number,
    present: (flags & 1) !== 0,
    zero: (flags & 2) !== 0,
    data: (flags & 4) !== 0,
  }
  if (offset >= 0) extent.offset = offset
  return extent
}

function toReport(native: unknown, { path }: Request): CheckReport {
  const report = native as Omit<CheckReport, 'path' | 'ok'>
  return { path, ok: report.corruptions === 0 && report.leaks === 0, ...report }
}
