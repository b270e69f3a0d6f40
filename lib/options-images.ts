// Every check of an argument of images.*: each gives the request as the addon takes it.
import { ImageError } from './errors.js'
import type { DiskFormat } from './image-types.js'
import {
  bad,
  readAbsolute,
  readBoolean,
  readChoice,
  readOptions,
  readPath,
  readSignal,
  readSize,
  readText,
  requireObject,
} from './options.js'

const builtFormats = ['raw', 'qcow2'] as const
const laterFormats: readonly unknown[] = ['vmdk', 'vhd', 'vhdx']

export function readFormat(op: string, name: string, value: unknown): DiskFormat | undefined {
  if (laterFormats.includes(value)) {
    throw new ImageError('UNSUPPORTED', `${name}: the ${value} format is not built`, {
      op,
      hint: 'The formats are raw and qcow2.',
    })
  }
  return readChoice(op, name, value, builtFormats)
}

const common = ['signal', 'onProgress']

export function readCreate(path: unknown, value: unknown): object {
  const op = 'images.create'
  const target = readAbsolute(op, 'path', path)
  if (value === undefined) throw bad(op, 'options', 'an object with a format', value)
  requireObject(op, 'options', value)
  const format = readFormat(op, 'format', value.format)
  if (format === undefined) throw bad(op, 'format', `'qcow2' or 'raw'`, undefined)
  const shared = ['format', 'size', 'overwrite', 'backing', 'preallocation', ...common]
  // extendedL2 and compression are recognised so that the refusal names them; they are not built.
  const qcow2 = ['clusterSize', 'compat', 'refcountBits', 'lazyRefcounts', 'extendedL2', 'compression']
  const options = readOptions(op, value, format === 'qcow2' ? [...shared, ...qcow2] : shared)
  const request = {
    path: target,
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

function readBacking(op: string, value: unknown): { path: string; format: DiskFormat } | undefined {
  if (value === undefined) return undefined
  const backing = readOptions(op, value, ['path', 'format'], 'backing')
  const format = readFormat(op, 'backing.format', backing.format)
  if (format === undefined) throw bad(op, 'backing.format', 'the backing format, which is never guessed', undefined)
  return { path: readPath(op, 'backing.path', backing.path), format }
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
  const options = readOptions(op, value, ['repair', 'format', ...common])
  return {
    path: readAbsolute(op, 'path', path),
    repair: readChoice(op, 'repair', options.repair, ['none', 'leaks', 'all']) ?? 'none',
    format: readFormat(op, 'format', options.format),
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
  const options = readOptions(op, value, ['into', 'format', 'keepOverlay', ...common])
  return {
    path: readAbsolute(op, 'path', path),
    into: options.into === undefined ? undefined : readPath(op, 'into', options.into),
    format: readFormat(op, 'format', options.format),
    keepOverlay: readBoolean(op, 'keepOverlay', options.keepOverlay) ?? true,
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
    preallocation: readChoice(op, 'preallocation', options.preallocation, ['off', 'falloc', 'full']) ?? 'off',
    format: readFormat(op, 'format', options.format),
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
