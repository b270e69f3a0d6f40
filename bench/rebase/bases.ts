// The pairs of bases that an overlay moves between.
import { execFile } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)
const MIB = 2 ** 20
/** As in the overlays, so that a difference of one byte is a cluster to copy. */
const CLUSTER = 64 * 1024
const CLUSTERS_A_MIB = MIB / CLUSTER

/** One cluster in ten is another in the second base, by its last four bytes. */
const DIFFERS_EVERY = 10

export interface Bases {
  readonly old: string
  readonly new: string
  readonly format: 'raw' | 'qcow2'
  readonly virtualBytes: number
  /** What a move has to copy. */
  readonly differingBytes: number
}

/** `dataMib` MiB of random bytes, one MiB at every `strideMib`-th of the image; all else is a hole. */
export async function makeBases(
  folder: string,
  name: string,
  { dataMib, strideMib, format }: { dataMib: number; strideMib: number; format: 'raw' | 'qcow2' },
): Promise<Bases> {
  const seed = randomFillSync(Buffer.allocUnsafe(MIB))
  const paths = [`${folder}/${name}-old.${format}`, `${folder}/${name}-new.${format}`] as const
  for (const [version, path] of paths.entries()) {
    const raw = format === 'raw' ? path : `${path}.raw`
    await using file = await open(raw, 'w')
    await file.truncate(dataMib * strideMib * MIB)
    for (let mib = 0; mib < dataMib; mib++) await file.write(stamped(seed, mib, version), 0, MIB, mib * strideMib * MIB)
    if (raw !== path) {
      await run('qemu-img', ['convert', '-f', 'raw', '-O', format, raw, path])
      await rm(raw)
    }
  }
  return {
    old: paths[0],
    new: paths[1],
    format,
    virtualBytes: dataMib * strideMib * MIB,
    differingBytes: Math.ceil((dataMib * CLUSTERS_A_MIB) / DIFFERS_EVERY) * CLUSTER,
  }
}

/** The seed with each cluster's number at its beginning, and the version at the end of those that differ. Never all zero. */
function stamped(seed: Buffer, mib: number, version: number): Buffer {
  const bytes = Buffer.from(seed)
  for (let i = 0; i < CLUSTERS_A_MIB; i++) {
    const cluster = mib * CLUSTERS_A_MIB + i
    bytes.writeUInt32LE(cluster + 1, i * CLUSTER)
    bytes.writeUInt32LE(cluster % DIFFERS_EVERY === 0 ? version : 0, (i + 1) * CLUSTER - 4)
  }
  return bytes
}
