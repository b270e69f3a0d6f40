// The names of disk formats on the command line: qemu-img's, and ours.
import type { DiskFormat } from '../image-types.js'
import { CommandError } from './arguments.js'

const NAMES: Readonly<Record<string, DiskFormat>> = {
  raw: 'raw',
  qcow2: 'qcow2',
  vmdk: 'vmdk',
  vpc: 'vhd',
  vhd: 'vhd',
  vhdx: 'vhdx',
}

export function formatOf(name: string): DiskFormat
export function formatOf(name: string | undefined): DiskFormat | undefined
export function formatOf(name: string | undefined): DiskFormat | undefined {
  if (name === undefined || Object.hasOwn(NAMES, name)) return name === undefined ? undefined : NAMES[name]
  throw new CommandError(`Unknown file format '${name}': the formats are ${Object.keys(NAMES).join(', ')}`)
}

/** As qemu-img calls it. */
export function showFormat(format: string): string {
  return format === 'vhd' ? 'vpc' : format
}
