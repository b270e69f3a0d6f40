export { Box } from './box.js'
export {
  BoxLostError,
  BoxNotFoundError,
  BoxStartError,
  ExecError,
  ExecFailedError,
  ExecLostError,
  ExecOverflowError,
  ExecSpawnError,
  ExecTimeoutError,
} from './box-errors.js'
export { BoxSnapshots, type CloneOptions, type SnapshotOptions } from './box-snapshots.js'
export type {
  BoxCreateOptions,
  BoxEvents,
  BoxFilter,
  BoxInfo,
  BoxLifecycleEvent,
  BoxState,
  DiskSpec,
  Isolation,
  Rootfs,
  SnapshotInfo,
  StopReason,
} from './box-types.js'
export {
  ImageError,
  InvalidArgumentError,
  RuntimeClosedError,
  SluiceboxError,
  type SluiceboxErrorCode,
} from './errors.js'
export { TypedEvents } from './events.js'
export type {
  Argv,
  Bytes,
  ExecOptions,
  ExecStdin,
  ExecutionEvent,
  ExecutionEvents,
  ExecutionInfo,
  ExitInfo,
  RunOptions,
  RunResult,
  Signal,
  StdinSource,
  User,
} from './exec-types.js'
export { Execution } from './execution.js'
export type {
  BoxResizeResult,
  Cancellable,
  CheckReport,
  CommitOptions,
  CommitResult,
  CompareOptions,
  CompareResult,
  ConvertIntoOptions,
  ConvertOptions,
  ConvertSource,
  DiskFormat,
  ImageCreateOptions,
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
  MeasureTarget,
  OpenOptions,
  Progress,
  Progressive,
  Qcow2Options,
  RebaseOptions,
  RebaseResult,
  ResizeOptions,
  Sharing,
  Size,
  SnapshotsOptions,
} from './image-types.js'
export type { RuntimeOptions } from './options.js'
export { type AcquireOptions, BoxPool } from './pool.js'
export {
  type DoctorReport,
  type ImageLifecycleEvent,
  Runtime,
  type RuntimeEvents,
  type RuntimeStats,
} from './runtime.js'
