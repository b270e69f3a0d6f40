// The public types of the image operations. Sizes are bytes, times are milliseconds.
import type { Readable } from 'node:stream'

/** Bytes as a number, or a string with a binary suffix: '64K', '10G'. Results are always numbers of bytes. */
export type Size = number | `${number}${'K' | 'M' | 'G' | 'T'}`

/** Aborting rejects with signal.reason; nothing is left half-done. */
export interface Cancellable {
  signal?: AbortSignal
}
/** Of operations that only read. */
export interface Sharing {
  /** Read although another program writes it, without locks: what comes of it may be torn. Default false: IMAGE_LOCKED. */
  shared?: boolean
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
export type DiskFormat = 'raw' | 'qcow2' | 'vmdk' | 'vhd' | 'vhdx'
export type ImageOp =
  | 'create'
  | 'info'
  | 'check'
  | 'rebase'
  | 'commit'
  | 'resize'
  | 'convert'
  | 'compare'
  | 'map'
  | 'measure'
  | 'snapshot'

/** The options of qcow2 images; raw ones have `preallocation` too. */
export interface Qcow2Options {
  /** 512 to 2M, a power of two. Default 64K. */
  clusterSize?: Size
  /** Default '1.1'; '0.10' is version 2 of the format. */
  compat?: '0.10' | '1.1'
  /** Default 16, the only one that '0.10' has. */
  refcountBits?: 1 | 2 | 4 | 8 | 16 | 32 | 64
  /** Default false. */
  lazyRefcounts?: boolean
  /** Keep track of each cluster in 32 parts, which are allocated, zeroed and copied one by one. Default false; clusters are 16K or more, and not every reader knows it. */
  extendedL2?: boolean
  /** How clusters are compressed, by convert() or by others later. Default 'zlib'; 'zstd' needs compat '1.1', and not every reader knows it. */
  compression?: 'zlib' | 'zstd'
  /** Default 'off'. */
  preallocation?: 'off' | 'metadata' | 'falloc' | 'full'
}
export type ImageCreateOptions = {
  /** What the guest sees. Default: the backing's size; required without one. */
  size?: Size
  /** Replace an existing file. Default false: IMAGE_EXISTS. */
  overwrite?: boolean
  /**
   * The image that shows through where the new one has no data. A relative path is resolved against the new image's directory and stored as given.
   * Of a vmdk, vhd or vhdx it is of the same format, and known again by the id that it has now: UNSUPPORTED for another format.
   * `unchecked` (default false; create() of qcow2 alone): it is not opened, and need not be there yet. `size` is required then.
   */
  backing?: { path: string; format: DiskFormat; unchecked?: boolean }
} & (
  | ({ format: 'qcow2' } & Qcow2Options)
  | {
      format: 'vmdk'
      /**
       * Default 'monolithicSparse'. Split and flat ones are several files, all beside `path`: `NAME-flat.vmdk`, or `NAME-s001.vmdk` (f001)
       * and on, each of 2G at most. 'streamOptimized' is written once: what is created is empty and stays so. Flat ones have no backing.
       */
      subformat?:
        | 'monolithicSparse'
        | 'monolithicFlat'
        | 'twoGbMaxExtentSparse'
        | 'twoGbMaxExtentFlat'
        | 'streamOptimized'
      /** 4K to 64K, a power of two. Default 64K. Flat ones have none. */
      grainSize?: Size
      /** The disk controller that VMware gives the disk. Default 'ide'. */
      adapter?: 'ide' | 'lsilogic' | 'buslogic'
    }
  | {
      /** Of exactly the size asked for, not rounded to a disk geometry; at most 2040 GiB. */
      format: 'vhd'
      /** Default 'dynamic', which with a backing is a differencing one; 'fixed' is a raw disk with a footer, and has none. */
      subformat?: 'dynamic' | 'fixed'
      /** 512K to 256M, a power of two; of a dynamic one. Default 2M. */
      blockSize?: Size
    }
  | {
      /** At most 64 TiB. */
      format: 'vhdx'
      /** Default 'dynamic', which with a backing is a differencing one; 'fixed' has a place for every block from the start, and no backing. */
      subformat?: 'dynamic' | 'fixed'
      /** 1M to 256M, a power of two. Default by the size, as qemu-img does: 8M up to 1 GiB, 16M up to 100 GiB, 32M up to 32 TiB, else 64M. */
      blockSize?: Size
      /** Whole MiB, at most 64M. Default 1M. */
      logSize?: Size
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
  /** How long its machine had run. */
  vmClockNs: number
  /** How many instructions that had executed, where somebody counted them. */
  icount?: number
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
  /** false: an overlay that is kept keeps its data and its backing as well. Default true. */
  emptyOverlay?: boolean
}
export interface CommitResult {
  /** What the overlay, and the images between, had of their own. */
  bytesCommitted: number
  durationMs: number
}
export interface ResizeOptions extends Cancellable, Progressive<'zero' | 'allocate' | 'header'> {
  /** Needed to make a disk smaller: what lies beyond the new end is lost. Default false. */
  shrink?: boolean
  /** Of what a raw or qcow2 disk gains; default 'off'. 'metadata' maps it, which a raw image has no use for; 'falloc' gives it space, 'full' writes zeros. */
  preallocation?: 'off' | 'metadata' | 'falloc' | 'full'
  /** The image's own format, where it must not be probed. */
  format?: DiskFormat
}
/** What is converted, and how. */
export interface ConvertSource extends Cancellable, Sharing, Progressive<'convert'> {
  /** The source's own format, where it must not be probed. */
  sourceFormat?: DiskFormat
  /** An internal snapshot of the source, by id or else by name: what it kept is converted. */
  snapshot?: string
  /**
   * What cannot be read of the source, for it is damaged or its disk fails, becomes zeros, and is told in the result. Default false.
   * The headers must be whole, of all images of the chain; of a disk whose last sector fails give `sourceFormat`.
   */
  salvage?: boolean
  /** Threads that read and compress, 1 to 16. Default: one a processor, up to 4. The file is the same whatever it is. */
  parallel?: number
  /** So many zeros, aligned, become a hole: a power of two from 512 to 2M. 0: everything is written. Default 4K. */
  sparseSize?: Size
}
export interface ConvertResult extends ImageInfo {
  /** With `salvage`: what of the disk could not be read and became zeros. `bytes`: of all; `parts`: ascending, 1,000 of them at most. */
  unreadable?: { bytes: number; parts: { start: number; length: number }[] }
}
/** What the target is to be like, a new file. Its size is the source's, or a larger one; with a backing, only what differs from that is written. */
export type ConvertOptions = ImageCreateOptions &
  ConvertSource & {
    /** Compress each cluster that gets smaller by it (qcow2). Default false. */
    compress?: boolean
  }
/**
 * The target is an image that is there already, or a block device: from its beginning on it is written over in place, and what lies behind
 * the source's end (in sectors of 512) stays. When this fails or is aborted it is sound, but not as before. IMAGE_TOO_SMALL if it is smaller
 * than the source.
 */
export interface ConvertIntoOptions extends ConvertSource {
  existing: true
  /** The target's own format, where it must not be probed. */
  format?: DiskFormat
  /** You know that it reads as zeros: where the source does, nothing is written. Default false. */
  targetIsZero?: boolean
}
export interface CompareOptions extends Cancellable, Sharing, Progressive<'compare'> {
  /** Disks of different sizes, or with different parts allocated, count as different too. Default false. */
  strict?: boolean
  /** The images' own formats, where they must not be probed. */
  formatA?: DiskFormat
  formatB?: DiskFormat
}
export interface CompareResult {
  identical: boolean
  /** In bytes from the disk's start: the first sector of 512 that differs. Absent where `strict` found the sizes different. */
  firstDifference?: number
  /** One disk is longer. They may still be identical: past its end the shorter one counts as zeros. */
  sizeDiffers: boolean
  /** `strict` found other parts allocated, from `firstDifference` on; the bytes before are the same. */
  allocationDiffers?: true
}
export interface MapOptions extends Cancellable, Sharing {
  /** The image's own format, where it must not be probed. */
  format?: DiskFormat
  /** In bytes. Default: the whole disk. */
  start?: number
  length?: number
}
/** A part of a disk, in the words of qemu-img's map. */
export interface MapExtent {
  /** What the guest sees, in bytes from the disk's start. */
  start: number
  length: number
  /** The layer of the chain that answers: 0 is the image itself. */
  depth: number
  /** A layer has it. Where none does, the guest reads zeros. */
  present: boolean
  /** It reads as zeros. */
  zero: boolean
  /** The layer holds bytes. */
  data: boolean
  /** Where they begin in the layer's file, or have a place kept for them; absent where they are compressed, or not there. */
  offset?: number
}
export type MeasureOptions = Cancellable &
  MeasureTarget &
  (
    | {
        /** The image that would be converted, with its chain. */
        source: string
        /** Its own format, where it must not be probed. */
        sourceFormat?: DiskFormat
        /** One of its internal snapshots, by id or name: what that kept is measured. */
        snapshot?: string
        /** As in Sharing, of the source. */
        shared?: boolean
      }
    | {
        /** Of an empty disk. */
        size: Size
      }
  )
/** What the file would be like: the options of create(), with their defaults. */
export interface MeasureTarget extends Qcow2Options {
  /** Raw or qcow2: UNSUPPORTED for others. Of the options, raw has `preallocation`. */
  format: DiskFormat
  /** It is not opened: nobody knows how much of the source is in there already, and it is supposed that nothing is. */
  backing?: { path: string; format: DiskFormat }
}
export interface MeasureResult {
  /** With the data that there is now. */
  requiredBytes: number
  /** With data everywhere. */
  fullyAllocatedBytes: number
  /** What the source's persistent bitmaps would take beside that, if they were copied too. Absent where source or target is no qcow2 image of version 3. */
  bitmapsBytes?: number
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
  /** Reads the header; with `chain`, those of its backing images too. */
  info(path: string, options?: { chain?: boolean; format?: DiskFormat } & Cancellable & Sharing): Promise<ImageInfo>
  /** Compares the image's reference counts with its metadata. Writes only what `repair` (default 'none') allows. */
  check(
    path: string,
    options?: { repair?: 'none' | 'leaks' | 'all'; format?: DiskFormat } & Cancellable & Sharing & Progressive,
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
   * Makes a raw, qcow2, vhd or vhdx disk larger, with zeros; or smaller, with `shrink`. The size is rounded up to 512. Partitions and file
   * systems are the guest's to fit, before it gets smaller and after it got larger.
   * @throws INVALID_ARGUMENT (smaller without `shrink`), IMAGE_LOCKED, UNSUPPORTED (vmdk, raw block devices; internal snapshots of version 2, bitmaps), NO_SPACE
   */
  resize(path: string, size: Size, options?: ResizeOptions): Promise<ImageInfo>
  /**
   * Writes what a guest reads of the source, with its chain, into a new image: under a temporary name, which becomes the target's when
   * it is whole. Holes stay holes. Progress is in bytes of the disk. Several sources are joined, one after the other; then there is no
   * backing and no snapshot.
   * @throws IMAGE_EXISTS, IMAGE_NOT_FOUND, IMAGE_LOCKED, IMAGE_CHAIN, IMAGE_CORRUPT, INVALID_ARGUMENT, NO_SPACE
   */
  convert(source: string | readonly string[], target: string, options: ConvertOptions): Promise<ConvertResult>
  /** Into an image that is there, in place. @throws also IMAGE_TOO_SMALL, UNSUPPORTED (compress) */
  convert(source: string | readonly string[], target: string, options: ConvertIntoOptions): Promise<ConvertResult>
  /**
   * Whether a guest reads the same bytes from both images, with their chains. What both say is zero is not read.
   * @throws IMAGE_NOT_FOUND, IMAGE_LOCKED, IMAGE_CHAIN, IMAGE_CORRUPT
   */
  compare(a: string, b: string, options?: CompareOptions): Promise<CompareResult>
  /**
   * What the disk is made of, in order and without gaps, in the words of qemu-img map --output=json. The image is opened, and locked,
   * for some thousand extents at a time, when the loop comes to them: an iterator that nobody reads holds nothing. Whoever writes to
   * the image in between makes what follows a map of the image as it is then.
   * @throws IMAGE_NOT_FOUND, IMAGE_LOCKED, IMAGE_CHAIN, IMAGE_CORRUPT
   */
  map(path: string, options?: MapOptions): AsyncIterable<MapExtent>
  /**
   * How large a raw or qcow2 file a conversion would make at least and at most, as qemu-img measure tells it: metadata is counted as of
   * the fully allocated file.
   * @throws IMAGE_NOT_FOUND, IMAGE_LOCKED, IMAGE_CHAIN, UNSUPPORTED (another format)
   */
  measure(options: MeasureOptions): Promise<MeasureResult>
  /** The snapshots inside an image, which keep what its disk was. */
  readonly snapshots: ImageSnapshots
  /**
   * Opens an image for its guest's bytes, and keeps it locked, as a running machine would, until it is closed.
   * @throws IMAGE_NOT_FOUND, IMAGE_FORMAT, IMAGE_LOCKED, IMAGE_CHAIN, IMAGE_CORRUPT, UNSUPPORTED
   */
  open(path: string, options?: OpenOptions): Promise<ImageHandle>
}
export interface OpenOptions extends Cancellable {
  /** The image's own format, where it must not be probed. */
  format?: DiskFormat
  /** Nothing is written, and others may read it as well. Default false. */
  readonly?: boolean
}
/**
 * An open image. Offsets and lengths are bytes of the disk, of any alignment; past its end is INVALID_ARGUMENT. Calls take effect in the
 * order in which they were made. close() flushes; so does the runtime's. One that is forgotten is closed without: what was not flushed
 * may be lost, and the image is sound.
 */
export interface ImageHandle extends AsyncDisposable {
  readonly path: string
  readonly format: DiskFormat
  /** What the guest sees. */
  readonly size: number
  readonly readonly: boolean
  /** At most 64 MiB a call. */
  read(offset: number, length: number, options?: Cancellable): Promise<Buffer>
  /** Takes a copy of the data, at most 64 MiB a call. Durable after flush(). */
  write(offset: number, data: Uint8Array, options?: Cancellable): Promise<void>
  /** The range reads as zeros; what was not there before takes no space. */
  zero(offset: number, length: number, options?: Cancellable): Promise<void>
  /** What was written is on the disk. */
  flush(options?: Cancellable): Promise<void>
  /** `start` and `end` are inclusive, as node:fs has them. Reads as it is read from. */
  createReadStream(options?: { start?: number; end?: number }): Readable
  /** Flushes, unlocks, and rejects when what was written could not be kept. Idempotent. */
  close(): Promise<void>
}
/** Of a qcow2 image that nobody has open. Each change is whole or not there, whenever the process is killed. */
export interface ImageSnapshots {
  /** Oldest first. */
  list(path: string, options?: SnapshotsOptions): Promise<ImageSnapshot[]>
  /**
   * Keeps what the disk is now; takes the time of its tables, and no space but theirs. `name`: 1 to 255 bytes.
   * @throws SNAPSHOT_EXISTS, IMAGE_LOCKED, IMAGE_CORRUPT, UNSUPPORTED (another format, bitmaps, counts that are too narrow)
   */
  create(path: string, name: string, options?: SnapshotsOptions): Promise<void>
  /** The disk is what it was then, and as large; what it is now is lost. @throws SNAPSHOT_NOT_FOUND, and as create() */
  apply(path: string, nameOrId: string, options?: SnapshotsOptions): Promise<void>
  /** Gives back the space of what only it kept, for other data of the image. @throws SNAPSHOT_NOT_FOUND, and as create() */
  remove(path: string, nameOrId: string, options?: SnapshotsOptions): Promise<void>
}
export interface SnapshotsOptions extends Cancellable {
  /** The image's own format, where it must not be probed. */
  format?: DiskFormat
}
