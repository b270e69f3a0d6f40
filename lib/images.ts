// images.*: checks the arguments, submits the work, gives native results their public shape.
import type {
  CheckReport,
  CommitOptions,
  CommitResult,
  ImageInfo,
  ImageOp,
  Images,
  RebaseOptions,
  RebaseResult,
  ResizeOptions,
  Size,
} from './image-types.js'
import type { Call } from './operation.js'
import { readFunction, readSignal } from './options.js'
import { readCheck, readCommit, readCreate, readInfo, readRebase, readResize } from './options-images.js'

/** Runs one call, telling the runtime's listeners of its start and end. */
export type RunImage = (op: ImageOp, path: string, call: Call, above: (...args: never[]) => unknown) => Promise<unknown>

type Request = { readonly path: string }

export class ImageOperations implements Images {
  readonly #run: RunImage

  constructor(run: RunImage) {
    this.#run = run
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
  snapshots: { id: string; name: string; seconds: number; nanoseconds: number; vmStateBytes: number }[]
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

function toReport(native: unknown, { path }: Request): CheckReport {
  const report = native as Omit<CheckReport, 'path' | 'ok'>
  return { path, ok: report.corruptions === 0 && report.leaks === 0, ...report }
}
