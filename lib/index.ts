export {
  ImageError,
  InvalidArgumentError,
  RuntimeClosedError,
  SluiceboxError,
  type SluiceboxErrorCode,
} from './errors.js'
export { TypedEvents } from './events.js'
export type {
  Cancellable,
  CheckReport,
  DiskFormat,
  ImageCreateOptions,
  ImageInfo,
  ImageOp,
  ImageSnapshot,
  Images,
  Progress,
  Progressive,
  RebaseOptions,
  RebaseResult,
  Size,
} from './image-types.js'
export type { RuntimeOptions } from './options.js'
export {
  type DoctorReport,
  type ImageLifecycleEvent,
  Runtime,
  type RuntimeEvents,
  type RuntimeStats,
} from './runtime.js'
