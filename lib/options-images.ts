// Every check of an argument of images.*: each gives the request as the addon takes it.
import { ImageError } from './errors.js'
import type { DiskFormat } from './image-types.js'
import {
  bad,
  readAbsolute,
  readBoolean,
  readChoice,
  readInteger,
  readOptions,
  readPath,
  readSignal,
  readSize,
  readText,
  requireObject,
} from './options.js'

const builtFormats = ['raw', 'qcow2', 'vmdk', 'vhd', 'vhdx'] as const

export function readFormat(op: string, name: string, value: unknown): DiskFormat | undefined {
  return readChoice(op, name, value, builtFormats)
}

const common = ['signal', 'onProgress']
const MOST_SOURCES = 1000
const vmdkSubformats = [
  'monolithicSparse',
  'monolithicFlat',
  'twoGbMaxExtentSparse',
  'twoGbMaxExtentFlat',
  'streamOptimized',
] as const

export function readCreate(path: unknown, value: unknown): object {
  const op = 'images.create'
  const request = { path: readAbsolute(op, 'path', path), ...readTarget(op, value, []) }
  if (request.backing?.unchecked && request.format !== 'qcow2')
    throw new ImageError(
      'UNSUPPORTED',
      `backing.unchecked: a ${request.format} image records its backing by an id, for which that is opened`,
      { op, hint: 'Create it when the backing is there, or use format: "qcow2".' },
    )
  if (request.backing?.unchecked && request.size === undefined)
    throw bad(op, 'size', 'the disk’s size, for a backing that is not opened does not tell it', undefined)
  return request
}

/** And what its format has beside. */
interface ReadTarget extends Record<string, unknown> {
  format: DiskFormat
  size: number | undefined
  overwrite: boolean
  backing: { path: string; format: DiskFormat; unchecked: boolean } | undefined
}

/** What an image is to be like; `more`: the keys that the operation has beside. */
function readTarget(op: string, value: unknown, more: readonly string[]): ReadTarget {
  if (value === undefined) throw bad(op, 'options', 'an object with a format', value)
  requireObject(op, 'options', value)
  const format = readFormat(op, 'format', value.format)
  if (format === undefined) throw bad(op, 'format', `'qcow2', 'vmdk', 'vhd', 'vhdx' or 'raw'`, undefined)
  if (format === 'vhd' || format === 'vhdx') return readTargetForWindows(op, format, value, more)
  const preallocation = format === 'vmdk' ? [] : ['preallocation']
  const shared = ['format', 'size', 'overwrite', 'backing', ...preallocation, ...common, ...more]
  const qcow2 = ['clusterSize', 'compat', 'refcountBits', 'lazyRefcounts', 'extendedL2', 'compression']
  const own = { raw: [], qcow2, vmdk: ['subformat', 'grainSize', 'adapter'] }
  const options = readOptions(op, value, [...shared, ...own[format]])
  const request = {
    format,
    size: readSize(op, 'size', options.size),
    overwrite: readBoolean(op, 'overwrite', options.overwrite) ?? false,
    backing: readBacking(op, options.backing),
  }
  if (format === 'raw') {
    if (request.backing)
      throw new ImageError('UNSUPPORTED', 'backing: a raw image cannot have one', { op, hint: 'Use format: "qcow2".' })
    return {
      ...request,
      preallocation: readChoice(op, 'preallocation', options.preallocation, ['off', 'falloc', 'full']) ?? 'off',
    }
  }
  if (format === 'vmdk')
    return {
      ...request,
      subformat: readChoice(op, 'subformat', options.subformat, vmdkSubformats) ?? 'monolithicSparse',
      grainSize: readSize(op, 'grainSize', options.grainSize) ?? 65536,
      adapter: readChoice(op, 'adapter', options.adapter, ['ide', 'lsilogic', 'buslogic']) ?? 'ide',
    }
  return {
    ...request,
    clusterSize: readSize(op, 'clusterSize', options.clusterSize) ?? 65536,
    version: readChoice(op, 'compat', options.compat, ['0.10', '1.1']) === '0.10' ? 2 : 3,
    refcountBits: readChoice(op, 'refcountBits', options.refcountBits, [1, 2, 4, 8, 16, 32, 64]) ?? 16,
    lazyRefcounts: readBoolean(op, 'lazyRefcounts', options.lazyRefcounts) ?? false,
    extendedL2: readBoolean(op, 'extendedL2', options.extendedL2) ?? false,
    zstd: readChoice(op, 'compression', options.compression, ['zlib', 'zstd']) === 'zstd',
    preallocation:
      readChoice(op, 'preallocation', options.preallocation, ['off', 'metadata', 'falloc', 'full']) ?? 'off',
  }
}

function readTargetForWindows(op: string, format: 'vhd' | 'vhdx', value: unknown, more: readonly string[]): ReadTarget {
  const own = format === 'vhdx' ? ['blockSize', 'logSize'] : ['blockSize']
  const shared = ['format', 'size', 'overwrite', 'backing', 'subformat', ...common, ...more]
  const options = readOptions(op, value, [...shared, ...own])
  const fixed = readChoice(op, 'subformat', options.subformat, ['dynamic', 'fixed']) === 'fixed'
  const blockSize = readSize(op, 'blockSize', options.blockSize)
  if (format === 'vhd' && fixed && blockSize !== undefined)
    throw bad(op, 'blockSize', 'nothing, for a fixed vhd has no blocks', blockSize)
  if (blockSize === 0) throw bad(op, 'blockSize', 'a power of two', blockSize)
  const request = {
    format,
    size: readSize(op, 'size', options.size),
    overwrite: readBoolean(op, 'overwrite', options.overwrite) ?? false,
    backing: readBacking(op, options.backing),
    fixed,
  }
  if (format === 'vhd') return { ...request, blockSize: blockSize ?? 2 ** 21 }
  // 0: the engine chooses by the disk's size.
  return { ...request, blockSize: blockSize ?? 0, logSize: readSize(op, 'logSize', options.logSize) ?? 2 ** 20 }
}

function readBacking(op: string, value: unknown): ReadTarget['backing'] {
  if (value === undefined) return undefined
  // What is converted is compared with it.
  const unchecked = op === 'images.create' ? ['unchecked'] : []
  const backing = readOptions(op, value, ['path', 'format', ...unchecked], 'backing')
  const format = readFormat(op, 'backing.format', backing.format)
  if (format === undefined) throw bad(op, 'backing.format', 'the backing format, which is never guessed', undefined)
  return {
    path: readPath(op, 'backing.path', backing.path),
    format,
    unchecked: readBoolean(op, 'backing.unchecked', backing.unchecked) ?? false,
  }
}

export function readConvert(source: unknown, target: unknown, value: unknown): object {
  const op = 'images.convert'
  const [sources, made] = [readSources(op, source), readAbsolute(op, 'target', target)]
  const own = ['sourceFormat', 'snapshot', 'compress', 'parallel', 'sparseSize', 'existing', 'shared', 'salvage']
  const image = readExisting(op, value, own) ?? { ...readTarget(op, value, own), existing: false }
  const options = value as Record<string, unknown>
  return {
    ...image,
    path: sources[0] as string,
    sources,
    target: made,
    sourceFormat: readFormat(op, 'sourceFormat', options.sourceFormat),
    shared: readBoolean(op, 'shared', options.shared) ?? false,
    snapshot: options.snapshot === undefined ? undefined : readText(op, 'snapshot', options.snapshot),
    salvage: readBoolean(op, 'salvage', options.salvage) ?? false,
    compress: readBoolean(op, 'compress', options.compress) ?? false,
    parallel: readInteger(op, 'parallel', options.parallel, 1, 16),
    sparseSize: readSize(op, 'sparseSize', options.sparseSize) ?? 4096,
  }
}

function readSources(op: string, source: unknown): string[] {
  if (!Array.isArray(source)) return [readAbsolute(op, 'source', source)]
  if (source.length === 0 || source.length > MOST_SOURCES)
    throw bad(op, 'source', `a path, or an array of 1 to ${MOST_SOURCES} paths`, source)
  // Array.from: map() would pass over a hole.
  return Array.from(source, (each, n) => readAbsolute(op, `source[${n}]`, each))
}

/** An image that is written over; undefined, when the target is to be made. */
function readExisting(op: string, value: unknown, more: readonly string[]): object | undefined {
  if (value === undefined) return undefined
  requireObject(op, 'options', value)
  if (readBoolean(op, 'existing', value.existing) !== true) return undefined
  const options = readOptions(op, value, ['format', 'targetIsZero', ...common, ...more])
  return {
    existing: true,
    format: readFormat(op, 'format', options.format),
    isZero: readBoolean(op, 'targetIsZero', options.targetIsZero) ?? false,
  }
}

export function readInfo(path: unknown, value: unknown): object {
  const op = 'images.info'
  const options = readOptions(op, value, ['chain', 'format', 'shared', 'signal'])
  return {
    path: readAbsolute(op, 'path', path),
    chain: readBoolean(op, 'chain', options.chain) ?? false,
    format: readFormat(op, 'format', options.format),
    shared: readBoolean(op, 'shared', options.shared) ?? false,
  }
}

export function readCheck(path: unknown, value: unknown): object {
  const op = 'images.check'
  const options = readOptions(op, value, ['repair', 'format', 'shared', ...common])
  return {
    path: readAbsolute(op, 'path', path),
    repair: readChoice(op, 'repair', options.repair, ['none', 'leaks', 'all']) ?? 'none',
    format: readFormat(op, 'format', options.format),
    shared: readBoolean(op, 'shared', options.shared) ?? false,
  }
}

export function readRebase(op: string, path: unknown, value: unknown) {
  const options = readOptions(op, value, ['backing', 'backingFormat', 'format', 'mode', 'dryRun', ...common])
  // A forgotten backing must not detach.
  if (options.backing === undefined) throw bad(op, 'backing', 'a path, or null to detach', undefined)
  return {
    path: readAbsolute(op, 'path', path),
    backing: options.backing === null ? '' : readText(op, 'backing', options.backing),
    backingFormat: readFormat(op, 'backingFormat', options.backingFormat),
    format: readFormat(op, 'format', options.format),
    unsafe: readChoice(op, 'mode', options.mode, ['safe', 'unsafe']) === 'unsafe',
    dryRun: readBoolean(op, 'dryRun', options.dryRun) ?? false,
  }
}

export function readCommit(path: unknown, value: unknown): object {
  const op = 'images.commit'
  const options = readOptions(op, value, ['into', 'format', 'keepOverlay', 'emptyOverlay', ...common])
  return {
    path: readAbsolute(op, 'path', path),
    into: options.into === undefined ? undefined : readPath(op, 'into', options.into),
    format: readFormat(op, 'format', options.format),
    keepOverlay: readBoolean(op, 'keepOverlay', options.keepOverlay) ?? true,
    emptyOverlay: readBoolean(op, 'emptyOverlay', options.emptyOverlay) ?? true,
  }
}

export function readResize(path: unknown, size: unknown, value: unknown): object {
  const op = 'images.resize'
  const options = readOptions(op, value, ['shrink', 'preallocation', 'format', ...common])
  const bytes = readSize(op, 'size', size)
  if (bytes === undefined) throw bad(op, 'size', `bytes, or a string like '10G'`, undefined)
  return {
    path: readAbsolute(op, 'path', path),
    size: bytes,
    shrink: readBoolean(op, 'shrink', options.shrink) ?? false,
    preallocation:
      readChoice(op, 'preallocation', options.preallocation, ['off', 'metadata', 'falloc', 'full']) ?? 'off',
    format: readFormat(op, 'format', options.format),
  }
}

export function readCompare(path: unknown, other: unknown, value: unknown): object {
  const op = 'images.compare'
  const options = readOptions(op, value, ['strict', 'formatA', 'formatB', 'shared', ...common])
  return {
    path: readAbsolute(op, 'a', path),
    other: readAbsolute(op, 'b', other),
    strict: readBoolean(op, 'strict', options.strict) ?? false,
    format: readFormat(op, 'formatA', options.formatA),
    otherFormat: readFormat(op, 'formatB', options.formatB),
    shared: readBoolean(op, 'shared', options.shared) ?? false,
  }
}

export function readMap(path: unknown, value: unknown) {
  const op = 'images.map'
  const options = readOptions(op, value, ['format', 'start', 'length', 'shared', 'signal'])
  return {
    path: readAbsolute(op, 'path', path),
    format: readFormat(op, 'format', options.format),
    start: readInteger(op, 'start', options.start, 0) ?? 0,
    length: readInteger(op, 'length', options.length, 0),
    shared: readBoolean(op, 'shared', options.shared) ?? false,
    signal: readSignal(op, options.signal),
  }
}

export function readMeasure(value: unknown): object {
  const op = 'images.measure'
  const image = readTarget(op, value, ['source', 'sourceFormat', 'snapshot', 'shared'])
  const options = value as Record<string, unknown>
  const { overwrite, onProgress } = options
  if (overwrite !== undefined) throw bad(op, 'overwrite', 'nothing: no file is made', overwrite)
  if (onProgress !== undefined) throw bad(op, 'onProgress', 'nothing: no progress is told', onProgress)
  const source = options.source === undefined ? undefined : readAbsolute(op, 'source', options.source)
  if (source === undefined && image.size === undefined) throw bad(op, 'source', 'a path, or else a size', undefined)
  if (source !== undefined && image.size !== undefined)
    throw bad(op, 'size', 'no size beside a source, which has its own', options.size)
  const of = ['sourceFormat', 'snapshot', 'shared'].find((key) => source === undefined && options[key] !== undefined)
  if (of) throw bad(op, of, 'a source beside it', options[of])
  return {
    ...image,
    path: source ?? '',
    source,
    sourceFormat: readFormat(op, 'sourceFormat', options.sourceFormat),
    shared: readBoolean(op, 'shared', options.shared) ?? false,
    snapshot: options.snapshot === undefined ? undefined : readText(op, 'snapshot', options.snapshot),
  }
}

export function readBoxResize(op: string, size: unknown, value: unknown) {
  const options = readOptions(op, value, ['disk', 'signal'])
  const bytes = readSize(op, 'size', size)
  if (bytes === undefined) throw bad(op, 'size', `bytes, or a string like '10G'`, undefined)
  return {
    size: bytes,
    disk: options.disk === undefined ? '' : readText(op, 'disk', options.disk),
    signal: readSignal(op, options.signal),
  }
}

export function readSnapshotChange(op: string, change: string, path: unknown, name: unknown, value: unknown): object {
  const options = readOptions(op, value, ['format', 'signal'])
  return {
    path: readAbsolute(op, 'path', path),
    change,
    name: readText(op, 'name', name),
    format: readFormat(op, 'format', options.format),
  }
}

export function readOpen(path: unknown, value: unknown) {
  const op = 'images.open'
  const options = readOptions(op, value, ['format', 'readonly', 'signal'])
  return {
    path: readAbsolute(op, 'path', path),
    format: readFormat(op, 'format', options.format),
    readonly: readBoolean(op, 'readonly', options.readonly) ?? false,
  }
}
