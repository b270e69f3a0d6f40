// Disks with a bit of everything, as qemu-img and qemu-io make them: what operations that read are tried on.
import { truncateSync, writeFileSync } from 'node:fs'
import type { DiskFormat } from '../../lib/image-types.js'
import { qemuImg, qemuIo } from './qemu.js'

export interface VariedDisk {
  readonly path: string
  readonly format: DiskFormat
  /** Of a qcow2: more than deflate, or less than all features, can be asked for. */
  readonly options: string
}

const WRITES = [
  'write -P 0x11 0 192K',
  'write -P 0x12 700K 3K',
  'write -z 1M 128K',
  'write -P 0x13 1536K 256K',
  'write -z 1600K 64K',
  'write -P 0x14 2900K 70K',
]

/** Each [name, made in the folder]: the file to look at, and its format. 4 MiB, but for the last. */
export const variedDisks: readonly (readonly [string, (folder: (name?: string) => string) => Promise<VariedDisk>])[] = [
  ['a sparse raw disk', raw],
  ...[
    ...['', 'cluster_size=512', 'cluster_size=2M', 'compat=0.10', 'refcount_bits=1', 'lazy_refcounts=on'],
    ...['extended_l2=on', 'extended_l2=on,cluster_size=16K', 'extended_l2=on,preallocation=metadata'],
  ].map((options) => [`qcow2 with ${options || 'defaults'}`, (folder: Folder) => qcow2(folder, options)] as const),
  ['qcow2 compressed by deflate', (folder) => compressed(folder, 'compression_type=zlib')],
  ['qcow2 compressed by zstd', (folder) => compressed(folder, 'compression_type=zstd')],
  ['qcow2 compressed, of subclusters', (folder) => compressed(folder, 'extended_l2=on')],
  ['an overlay of subclusters', (folder) => overlay(folder, 'qcow2', '5M', 'extended_l2=on')],
  ['an overlay over a raw base that is shorter', (folder) => overlay(folder, 'raw', '1700K')],
  ['an overlay over a qcow2 base that is longer', (folder) => overlay(folder, 'qcow2', '6M')],
  ['a chain of three', chain],
  ['a size that is no whole cluster', odd],
]

type Folder = (name?: string) => string

async function raw(folder: Folder): Promise<VariedDisk> {
  const path = folder('varied.raw')
  writeFileSync(path, '')
  truncateSync(path, 4 * 2 ** 20)
  await qemuIo(path, WRITES, 'raw')
  return { path, format: 'raw', options: '' }
}

async function qcow2(folder: Folder, options: string, size = '4M', writes = WRITES): Promise<VariedDisk> {
  const path = folder('varied.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', ...(options ? ['-o', options] : []), path, size)
  await qemuIo(path, writes)
  return { path, format: 'qcow2', options }
}

async function compressed(folder: Folder, options: string): Promise<VariedDisk> {
  const { path } = await raw(folder)
  const packed = folder('packed.qcow2')
  await qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, path, packed)
  await qemuIo(packed, ['write -P 0x21 64K 64K', 'write -P 0x22 3M 10K'])
  return { path: packed, format: 'qcow2', options }
}

async function overlay(
  folder: Folder,
  format: 'raw' | 'qcow2',
  size: string,
  options = 'extended_l2=off',
): Promise<VariedDisk> {
  const base = folder(`base.${format}`)
  await qemuImg('create', '-q', '-f', format, base, size)
  await qemuIo(base, ['write -P 0x31 100K 900K', 'write -P 0x32 1500K 200K'], format)
  const path = folder('varied.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', options, '-b', base, '-F', format, path, '4M')
  await qemuIo(path, WRITES.slice(1))
  return { path, format: 'qcow2', options }
}

async function chain(folder: Folder): Promise<VariedDisk> {
  const { path } = await overlay(folder, 'raw', '3M')
  const top = folder('top.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4K', '-b', path, '-F', 'qcow2', top)
  await qemuIo(top, ['write -P 0x41 20K 4K', 'write -z 200K 100K', 'write -P 0x42 1540K 20K', 'write -P 0x43 3M 1M'])
  return { path: top, format: 'qcow2', options: '' }
}

function odd(folder: Folder): Promise<VariedDisk> {
  return qcow2(folder, '', '1000K', ['write -P 0x51 100K 100K', 'write -P 0x52 990K 10K'])
}
