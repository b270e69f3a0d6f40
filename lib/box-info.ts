// A box as info() and list() tell it, from its record.
import type { BoxInfo } from './box-types.js'
import type { BoxRecord } from './native.js'
import { parseConfig, toRootfs } from './options-box.js'

export function toInfo(record: BoxRecord): BoxInfo {
  const { id, name, state, createdAt, startedAt, vcpus, memory, isolation, disks = [], warnings } = record
  return {
    id,
    ...(name !== undefined && { name }),
    state,
    createdAt: new Date(createdAt),
    ...(startedAt !== undefined && { startedAt: new Date(startedAt) }),
    vcpus,
    memoryBytes: memory > 0 ? memory : null,
    isolation,
    accel: isolation === 'vm' ? 'tcg' : null,
    rootfs: toRootfs(record),
    diskPath: disks[0]?.overlayPath ?? null,
    disks: disks.map(({ path, overlayPath = null }, index) => ({ path, device: deviceName(index), overlayPath })),
    labels: parseConfig(record).labels,
    warnings,
  }
}

/** As a virtual machine's kernel names its disks, in their order. */
const deviceName = (index: number): string => `/dev/vd${String.fromCharCode('a'.charCodeAt(0) + index)}`
