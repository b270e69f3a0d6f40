import { expectAssignable, expectError, expectType } from 'tsd'
import {
  type Box,
  type BoxInfo,
  type BoxPool,
  type BoxResizeResult,
  type BoxSnapshots,
  type Execution,
  type ExitInfo,
  type RebaseResult,
  type RunResult,
  Runtime,
  type SnapshotInfo,
} from '../dist/index.js'

const runtime = new Runtime()
declare const box: Box
expectType<Promise<Box>>(
  runtime.create({ memory: '512M', vcpus: Number.POSITIVE_INFINITY, rootfs: { directory: '/srv/root' } }),
)
expectType<Promise<Box>>(runtime.get('web'))
expectType<Promise<boolean>>(runtime.has('web'))
expectType<Promise<BoxInfo[]>>(runtime.list({ state: ['running', 'stopped'], labels: { team: 'a' } }))
expectError(runtime.create({ memory: '512X' }))
expectError(runtime.create({ network: 'none' }))
expectType<Promise<Box>>(
  runtime.create({ isolation: 'vm', rootfs: { disk: 'a.qcow2', mode: 'readonly' }, disks: [{ path: 'b.raw' }] }),
)
expectError(runtime.create({ isolation: 'vm', rootfs: { disk: 'a.qcow2', mode: 'any' } }))
expectType<Promise<RebaseResult>>(runtime.rebase(box, { backing: 'c.qcow2', disk: '/dev/vdb' }))
expectType<Promise<BoxResizeResult>>(runtime.resize(box, '20G', { disk: '/dev/vdb' }))
expectError(runtime.resize('c.qcow2', '20G'))
expectType<Promise<BoxPool>>(runtime.pool({ size: 2, memory: '64M' }))
expectError(runtime.pool({ memory: '64M' }))
expectError(runtime.list({ state: 'asleep' }))

expectAssignable<AsyncDisposable>(box)
expectType<Promise<RunResult<string>>>(box.run(['true']))
expectType<Promise<RunResult<Uint8Array>>>(box.run(['true'], { encoding: 'buffer' }))
expectType<Promise<RunResult<string>>>(box.shell('true', { encoding: 'latin1' }))
expectType<Promise<Execution>>(box.exec(['true'], { tty: { cols: 80, rows: 24 }, killSignal: 'SIGRTMIN+1' }))
expectError(box.run('true'))
expectError(box.run(['true'], { stdin: 'pipe' }))
expectError(box.run(['true'], { encoding: 'hex' }))
box.on('state', (state, previous) => expectAssignable<[string, string]>([state, previous]))
expectError(box.on('nosuch', () => {}))

expectType<Promise<SnapshotInfo>>(box.snapshot())
expectType<Promise<SnapshotInfo>>(box.snapshot('warm', { memory: true, labels: { team: 'a' } }))
expectError(box.snapshot({ memory: true }))
expectType<BoxSnapshots>(box.snapshots)
expectType<Promise<SnapshotInfo[]>>(box.snapshots.list())
expectType<Promise<void>>(box.snapshots.restore('warm', { signal: AbortSignal.timeout(5) }))
expectType<Promise<void>>(box.snapshots.remove('warm'))
expectError(box.snapshots.restore())
expectType<Promise<Box>>(box.clone())
expectType<Promise<Box>>(box.clone({ name: 'web-2', from: 'warm', memory: false }))
expectType<Promise<PromiseSettledResult<Box>[]>>(box.clone({ count: 3, from: 'warm' }))
expectError(box.clone({ count: 3, name: 'web-2' }))
declare const snapshot: SnapshotInfo
expectType<Date>(snapshot.createdAt)
expectType<string | undefined>(snapshot.parent)
expectType<Readonly<Record<string, string>>>(snapshot.labels)

declare const execution: Execution
expectAssignable<AsyncDisposable>(execution)
expectType<Promise<ExitInfo>>(execution.wait({ timeoutMs: 5 }))
expectType<Promise<boolean>>(execution.kill('SIGINT', { scope: 'process', forceAfterMs: false }))
expectType<AsyncIterable<string>>(execution.lines())
expectType<AsyncIterable<{ from: 'stdout' | 'stderr'; line: string }>>(execution.lines({ from: 'all' }))
expectType<number | undefined>(execution.exit?.exitCode)
execution.on('exit', (exit) => expectType<ExitInfo>(exit))
expectError(execution.kill('SIGNOSUCH'))
