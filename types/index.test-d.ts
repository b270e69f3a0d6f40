import { expectAssignable, expectError, expectType } from 'tsd'
import {
  type CheckReport,
  type CommitResult,
  type CompareResult,
  type ConvertResult,
  type ImageHandle,
  type ImageInfo,
  InvalidArgumentError,
  type MapExtent,
  type MeasureResult,
  type RebaseResult,
  Runtime,
  type RuntimeStats,
  SluiceboxError,
} from '../dist/index.js'

const runtime = new Runtime({ workers: 2, queue: { maxEvents: 64 }, allowPaths: ['/'], templates: false })
expectAssignable<AsyncDisposable>(runtime)
expectType<RuntimeStats>(runtime.stats())
expectType<Promise<void>>(runtime.close({ timeoutMs: 10, boxes: 'leave' }))
expectError(runtime.close({ boxes: 'kill' }))

expectType<Promise<ImageInfo>>(runtime.images.create('a', { format: 'qcow2', size: '10G', clusterSize: '64K' }))
expectType<Promise<ImageInfo>>(runtime.images.create('a', { format: 'raw', size: 1024, preallocation: 'full' }))
expectType<Promise<CheckReport>>(runtime.images.check('a', { repair: 'leaks', signal: new AbortController().signal }))
expectType<Promise<RebaseResult>>(runtime.rebase('a', { backing: null }))
expectType<Promise<RebaseResult>>(
  runtime.rebase('a', {
    backing: 'b',
    onProgress: ({ phase }) => expectType<'plan' | 'compare' | 'copy' | 'header'>(phase),
  }),
)

expectType<Promise<CommitResult>>(runtime.images.commit('a'))
expectType<Promise<CommitResult>>(
  runtime.images.commit('a', {
    into: 'b',
    keepOverlay: false,
    onProgress: ({ phase }) => expectType<'plan' | 'copy' | 'empty' | 'remove'>(phase),
  }),
)
expectType<Promise<ImageInfo>>(runtime.images.resize('a', '20G'))
expectType<Promise<ImageInfo>>(runtime.images.resize('a', 512, { shrink: true, preallocation: 'falloc' }))

expectType<Promise<ConvertResult>>(
  runtime.images.convert('a', 'b', {
    format: 'qcow2',
    compress: true,
    compression: 'zstd',
    parallel: 2,
    sparseSize: '64K',
  }),
)
expectType<Promise<ConvertResult>>(
  runtime.images.convert('a', 'b', { format: 'raw', snapshot: 'one', sourceFormat: 'qcow2' }),
)
expectError(runtime.images.convert('a', 'b', { compress: true }))
expectType<Promise<ConvertResult>>(
  runtime.images.convert('a', 'b', { existing: true, targetIsZero: true, shared: true }),
)
expectError(runtime.images.convert('a', 'b', { existing: true, size: '1G' }))
expectError(runtime.images.convert('a', 'b', { existing: true, compress: true }))
expectError(runtime.images.convert('a', 'b', { format: 'raw', targetIsZero: true }))
expectError(runtime.images.convert('a', 'b', { format: 'raw', clusterSize: '64K' }))
expectType<Promise<CompareResult>>(runtime.images.compare('a', 'b', { strict: true, formatA: 'raw' }))
expectType<AsyncIterable<MapExtent>>(runtime.images.map('a', { start: 0, length: 512 }))
expectType<Promise<MeasureResult>>(runtime.images.measure({ source: 'a', format: 'qcow2' }))
expectType<Promise<MeasureResult>>(runtime.images.measure({ size: '1G', format: 'raw' }))
expectError(runtime.images.measure({ format: 'raw' }))
expectError(runtime.images.resize('a'))
expectType<Promise<ImageInfo>>(runtime.images.resize('a', '20G', { preallocation: 'metadata' }))
expectError(runtime.images.resize('a', '20G', { preallocation: 'some' }))
expectType<Promise<MeasureResult>>(
  runtime.images.measure({ source: 'a', snapshot: 'b', format: 'qcow2', clusterSize: '4K', preallocation: 'full' }),
)
expectError(runtime.images.commit('a', { into: null }))
expectError(runtime.rebase('a', {}))
expectType<Promise<ConvertResult>>(runtime.images.convert(['a', 'b'] as const, 'c', { format: 'raw' }))
expectError(runtime.images.convert([1], 'c', { format: 'raw' }))
expectType<Promise<ImageInfo>>(
  runtime.images.create('a', { format: 'qcow2', size: 1, backing: { path: 'b', format: 'raw', unchecked: true } }),
)
expectError(runtime.rebase('a', { backing: 'b', mode: 'quick' }))
expectError(runtime.images.create('a', { format: 'raw', size: 1, clusterSize: 512 }))
expectError(runtime.images.create('a', { format: 'vhd', size: 1, preallocation: 'full' }))
expectType<Promise<ImageHandle>>(runtime.images.open('a', { readonly: true }))
expectType<Promise<void>>(runtime.images.snapshots.create('a', 'name'))
expectError(runtime.images.create('a', { format: 'vmdk', size: 512, preallocation: 'full' }))
expectType<Promise<ImageInfo>>(
  runtime.images.create('a', { format: 'vmdk', size: 512, subformat: 'twoGbMaxExtentFlat', adapter: 'lsilogic' }),
)
expectError(runtime.images.create('a', { format: 'qcow2', size: '10X' }))
expectError(runtime.on('image', 'not a function'))
expectError(runtime.on('nosuch', () => {}))
expectError(runtime.emit('close'))

runtime.on('image', (event) => expectType<'started' | 'finished' | 'failed'>(event.type))
runtime.on('pressure', ({ state }) => expectType<'high' | 'normal'>(state))

const caught: unknown = new InvalidArgumentError('size', 'bytes', 'images.create')
if (SluiceboxError.is(caught)) expectType<SluiceboxError>(caught)
