// The snapshots inside an image, in qemu-img's columns and in its JSON.
import type { ImageSnapshot } from '../../image-types.js'
import { showSize } from '../size.js'

const two = (value: number): string => String(value).padStart(2, '0')

export function snapshotTable(snapshots: readonly ImageSnapshot[]): string[] {
  return ['Snapshot list:', row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT'), ...snapshots.map(toRow)]
}

function row(id: string, tag: string, size: string, date: string, clock: string, icount: string): string {
  return [
    id.padEnd(9),
    tag.padEnd(16),
    size.padStart(8),
    date.padStart(19),
    clock.padStart(12),
    icount.padStart(10),
  ].join(' ')
}

function toRow({ id, name, at, vmStateBytes, vmClockNs, icount }: ImageSnapshot): string {
  const date = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
  const ms = Math.floor(vmClockNs / 1e6)
  const seconds = Math.floor(ms / 1000)
  const clock = `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`
  const millis = String(ms % 1000).padStart(3, '0')
  return row(
    id,
    name,
    showSize(vmStateBytes),
    `${date} ${time}`,
    `${clock}.${millis}`,
    icount === undefined ? '' : String(icount),
  )
}

export function snapshotsToJson({ id, name, at, vmStateBytes, vmClockNs, icount }: ImageSnapshot): object {
  const ms = at.getTime()
  return {
    ...(icount !== undefined && { icount }),
    'vm-clock-nsec': vmClockNs % 1e9,
    name,
    'date-sec': Math.floor(ms / 1000),
    'date-nsec': Math.round((ms % 1000) * 1e6),
    'vm-clock-sec': Math.floor(vmClockNs / 1e9),
    id,
    'vm-state-size': vmStateBytes,
  }
}
