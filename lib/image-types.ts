// The public types of the image operations. Sizes are bytes, times are milliseconds.

/** Bytes as a number, or a string with a binary suffix: '64K', '10G'. Results are always numbers of bytes. */
export type Size = number | `${number}${'K' | 'M' | 'G' | 'T'}`

/** Aborting rejects with signal.reason; nothing is left half-done. */
export interface Cancellable {
  signal?: AbortSignal
}
export interface Progress<P extends string = string> {
  phase: P
  done: number
  total: number | null
  unit: 'bytes' | 'clusters' | 'items'
  elapsedMs: number
}
export interface Progressive<P extends string = string> {
  /** Called on this thread; only the latest state is delivered, `done` never decreases, none comes after settlement. */
  onProgress?: (progress: Progress<P>) => void
}

/** The disk formats that are built. */
export type DiskFormat = 'raw' | 'qcow2'
export type ImageOp = 'create' | 'info' | 'check' | 'rebase' | 'commit' | 'resize'

export type ImageCreateOptions = {
  /** What the guest sees. Default: the backing's size; required without one. */
  size?: Size
  /** Replace an existing file. Default false: IMAGE_EXISTS. */
  overwrite?: boolean
  /** The image that shows through where the new one has no data. A relative path is resolved against the new image's directory and stored as given. */
  backing?: { path: string; format: DiskFormat }
} & (
  | {
      format: 'qcow2'
      /** 512 to 2M, a power of two. Default 64K. */
      clusterSize?: Size
      /** Default '1.1'; '0.10' is version 2 of the format. */
      compat?: '0.10' | '1.1'
      /** Default 16, the only one that '0.10' has. */
      refcountBits?: 1 | 2 | 4 | 8 | 16 | 32 | 64
      /** Default false. */
      lazyRefcounts?: boolean
      /** Default 'off'. */
      preallocation?: 'off' | 'metadata' | 'falloc' | 'full'
    }
  | {
      format: 'raw'
      /** Default 'off': a sparse file. */
      preallocation?: 'off' | 'falloc' | 'full'
    }
)

export interface ImageSnapshot {
  id: string
  name: string
  at: Date
  vmStateBytes: number
}
export interface ImageInfo {
  path: string
  format: DiskFormat
  /** What the guest sees. */
  virtualBytes: number
  /** What the file takes on its file system. */
  allocatedBytes: number
  clusterBytes?: number
  backing?: {
    /** As recorded in the image. */
    path: string
    resolvedPath: string
    format?: DiskFormat
    /** Whether it is there and may be opened by the path policy. */
    exists: boolean
  }
  /** With `chain: true`: this image first, then its backing, and so on. */
  chain?: ImageInfo[]
  dirty: boolean
  corrupt: boolean
  encrypted: boolean
  /** As many of the first as have no more than 1 MiB of ids and names; `specific['snapshots-omitted']` counts the others. */
  snapshots: ImageSnapshot[]
  /** What only this format has, under the names that qemu-img's JSON gives it. */
  specific: Record<string, unknown>
}
export interface CheckReport {
  path: string
  /** No corruption and no leak remains. */
  ok: boolean
  corruptions: number
  leaks: number
  leaksFixed: number
  corruptionsFixed: number
  totalClusters: number
  allocatedClusters: number
  fragmentedClusters: number
  compressedClusters: number
  imageEndOffset: number
  /** The first 1,000; the counts are complete. */
  problems: { kind: string; offset?: number; message: string }[]
}
export interface RebaseOptions extends Cancellable, Progressive<'plan' | 'compare' | 'copy' | 'header'> {
  /** null or '' detaches. A relative path is resolved against the overlay's directory and stored as given. */
  backing: string | null
  /** Default: recognised by its header; a raw one is never guessed. */
  backingFormat?: DiskFormat
  /** The overlay's own format, where it must not be probed. */
  format?: DiskFormat
  /** 'safe' (default) compares and copies so that guest-visible bytes do not change; 'unsafe' rewrites the pointer only. */
  mode?: 'safe' | 'unsafe'
  /** Count what would be copied, write nothing. */
  dryRun?: boolean
}
export interface RebaseResult {
  path: string
  format: DiskFormat
  backingFormat: DiskFormat | null
  /** The backing as recorded before, and now. */
  from: string | null
  to: string | null
  mode: 'safe' | 'unsafe'
  clustersCompared: number
  clustersCopied: number
  bytesCopied: number
  durationMs: number
  /** Only of a running box: how long its guest stood still. */
  pausedMs?: number
  dryRun: boolean
}
export interface CommitOptions extends Cancellable, Progressive<'plan' | 'copy' | 'empty' | 'remove'> {
  /**
   * A file further down in the overlay's chain, which then gets the data of the images between as well. A relative path is resolved
   * against the overlay's directory, and recorded as given: the overlay stands on that file afterwards. Default: its backing.
   */
  into?: string
  /** The overlay's own format, where it must not be probed. */
  format?: DiskFormat
  /** true (default): the overlay is emptied and stays, as after qemu-img commit; false: its file is removed. */
  keepOverlay?: boolean
}
export interface CommitResult {
  /** What the overlay, and the images between, had of their own. */
  bytesCommitted: number
  durationMs: number
}
export interface ResizeOptions extends Cancellable, Progressive<'zero' | 'allocate' | 'header'> {
  /** Needed to make a disk smaller: what lies beyond the new end is lost. Default false. */
  shrink?: boolean
  /** Of what a raw image gains; default 'off'. For qcow2 only 'off' is built. */
  preallocation?: 'off' | 'falloc' | 'full'
  /** The image's own format, where it must not be probed. */
  format?: DiskFormat
}
/** Of a box's disk: see Runtime.resize(). */
export interface BoxResizeResult {
  /** The overlay that has the size. */
  path: string
  /** What the guest saw before, and sees now, in bytes. */
  from: number
  to: number
  durationMs: number
}

/** Operations on disk images, in this process, on the runtime's workers. */
export interface Images {
  /**
   * Writes a new, empty image under a temporary name and gives it its own when it is whole.
   * @throws IMAGE_EXISTS, IMAGE_NOT_FOUND (the backing), IMAGE_CHAIN, INVALID_ARGUMENT, NO_SPACE
   */
  create(path: string, options: ImageCreateOptions & Cancellable & Progressive): Promise<ImageInfo>
  /** Reads the header; with `chain`, those of its backing images too. `shared`: read although another program writes it; what it says may be torn. */
  info(
    path: string,
    options?: { chain?: boolean; format?: DiskFormat; shared?: boolean } & Cancellable,
  ): Promise<ImageInfo>
  /** Compares the image's reference counts with its metadata. Writes only what `repair` (default 'none') allows. */
  check(
    path: string,
    options?: { repair?: 'none' | 'leaks' | 'all'; format?: DiskFormat } & Cancellable & Progressive,
  ): Promise<CheckReport>
  /** Moves an overlay to another backing image without changing what a guest reads from it. */
  rebase(path: string, options: RebaseOptions): Promise<RebaseResult>
  /**
   * Writes an overlay's data into its backing (or `into`, further down), then empties the overlay, or removes it. What is read through
   * the overlay does not change, at no moment; every other image that stands on the file written does, those between included. A backing
   * that is too small grows.
   * @throws IMAGE_TOO_SMALL (the backing cannot grow), IMAGE_CHAIN, IMAGE_LOCKED, UNSUPPORTED (internal snapshots), NO_SPACE
   */
  commit(path: string, options?: CommitOptions): Promise<CommitResult>
  /**
   * Makes the disk larger, with zeros; or smaller, with `shrink`. The size is rounded up to 512. Partitions and file systems are the
   * guest's to fit, before it gets smaller and after it got larger.
   * @throws INVALID_ARGUMENT (smaller without `shrink`), IMAGE_LOCKED, UNSUPPORTED (internal snapshots, bitmaps), NO_SPACE
   */
  resize(path: string, size: Size, options?: ResizeOptions): Promise<ImageInfo>
}
