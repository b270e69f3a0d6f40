// The public types of boxes. Sizes are bytes, times are milliseconds.
import type { SluiceboxError } from './errors.js'
import type { User } from './exec-types.js'
import type { Execution } from './execution.js'
import type { Size } from './image-types.js'

/** What stands between a box and the host: Linux namespaces, or a virtual machine of QEMU with a kernel of its own. */
export type Isolation = 'vm' | 'namespace'
export type BoxState = 'created' | 'starting' | 'running' | 'paused' | 'stopping' | 'stopped' | 'failed' | 'removed'
export type StopReason = 'requested' | 'guest-shutdown' | 'killed' | 'idle' | 'ttl'
/**
 * What the box sees as /. Of namespaces: the host's own programs and libraries, read-only, or a directory; under a private layer.
 * Of a virtual machine: the same programs, in an image that all such machines of a home share, under a layer in its memory; a disk that
 * holds an ext4 file system; or a directory, whose files are copied to a disk of the box.
 */
export type Rootfs =
  | 'host'
  | { directory: string }
  | ({ disk: string } & Omit<DiskSpec, 'path'>)
  /**
   * A snapshot of a virtual machine in the same home, by its id or as 'BOX/SNAPSHOT': the new box goes on from there, as a clone does, with
   * the disks, memory and limits that its box had. `memory: false`: from its disks alone. Default: whether it has memory.
   */
  | { snapshot: string; memory?: boolean }

/** mode 'overlay' (default): writes go to a qcow2 overlay that belongs to the box; the file named is never written. */
export interface DiskSpec {
  path: string
  /** Default: what its header says. */
  format?: 'raw' | 'qcow2'
  mode?: 'overlay' | 'direct' | 'readonly'
}

export interface BoxCreateOptions {
  /** Default: the runtime's. 'auto' is 'namespace'. */
  isolation?: Isolation | 'auto'
  /** Default 'host'. */
  rootfs?: Rootfs
  /** More disks of a virtual machine: /dev/vdb and on. */
  disks?: DiskSpec[]
  /** Named boxes persist; unnamed ones are removed when stopped. */
  name?: string
  /** 'reuse' hands over the box of that name only where its configuration is this one; else BOX_EXISTS names what differs. Default 'error'. */
  ifExists?: 'error' | 'reuse' | 'replace'
  /** Removed when it stops. Default: true without a name, false with one. */
  ephemeral?: boolean
  /** Default true. */
  start?: boolean
  /** Default 1; Infinity: no limit. */
  vcpus?: number
  /** Default '256M'; Infinity: no limit. */
  memory?: Size
  /**
   * Bytes the box may write to its private layer. Unnamed: a tmpfs of this size, charged to memory. Named: the layer lies in the
   * home, and a storage asked for is UNSUPPORTED where the file system has no project quotas. Of a virtual machine: the size of
   * its root disk's overlay, by default that of the disk below; on the host's programs that of the layer in its memory, by default half
   * of that.
   */
  storage?: Size
  /** Default 512; Infinity: no limit. */
  maxProcesses?: number
  /** Over the default PATH and, for root, HOME; nothing of the host's environment is seen. */
  env?: Record<string, string>
  /** Default '/'. */
  cwd?: string
  /** Default: the box's root. */
  user?: User
  labels?: Record<string, string>
  /** Default 60,000. */
  bootTimeoutMs?: number
  /** Time without a running execution or a touch(), after which onIdle happens. No default. */
  idleTimeoutMs?: number
  /** 'pause' is for virtual machines: the next call resumes them. Default 'stop'. */
  onIdle?: 'stop' | 'pause'
  /** How long the box may run in all. No default. */
  ttlMs?: number
}

export interface BoxFilter {
  /** Boxes that have all of these. */
  labels?: Record<string, string>
  state?: BoxState | BoxState[]
  name?: string
}

export interface BoxInfo {
  readonly id: string
  readonly name?: string
  readonly state: BoxState
  readonly createdAt: Date
  readonly startedAt?: Date
  readonly vcpus: number
  readonly memoryBytes: number | null
  readonly isolation: Isolation
  /** How a virtual machine's processors are had: emulated. */
  readonly accel: 'tcg' | null
  readonly rootfs: Rootfs
  /** The box's own overlay, which images.* and rebase() take while the box is stopped. */
  readonly diskPath: string | null
  readonly disks: readonly { readonly path: string; readonly device: string; readonly overlayPath: string | null }[]
  readonly labels: Readonly<Record<string, string>>
  /** Protections or limits that this host cannot enforce and that were not asked for by name. */
  readonly warnings: readonly string[]
}

export interface SnapshotInfo {
  readonly id: string
  readonly name: string
  readonly createdAt: Date
  /** Whether the machine's memory is in it. */
  readonly memory: boolean
  /** What it takes on the host's disk. */
  readonly bytes: number
  /** How long the guest stood still for it; without memory, how long its writes to disk waited. */
  readonly pausedMs: number
  /** The id of the box's snapshot before it. */
  readonly parent?: string
  readonly labels: Readonly<Record<string, string>>
}

export interface BoxEvents {
  /** Each change, once, in order. */
  state: [state: BoxState, previous: BoxState]
  exec: [execution: Execution]
  stopped: [reason: StopReason]
  /** The box failed. */
  error: [error: SluiceboxError]
}

export type BoxLifecycleEvent =
  | { type: 'created' | 'starting' | 'running' | 'paused' | 'stopping' | 'removed'; boxId: string; at: Date }
  | { type: 'stopped'; boxId: string; at: Date; reason: StopReason }
  | { type: 'failed'; boxId: string; at: Date; error: SluiceboxError }
