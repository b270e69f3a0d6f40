// What the figures of virtual machines are taken of: one runtime, one root disk, machines that boot.
import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Box, type BoxCreateOptions, Runtime } from 'sluicebox'
import { makeGuestDisk } from '../../examples/support/guest-disk.js'
import { type GuestKernel, guestKernel } from './guest-kernel.js'

export interface Bench {
  readonly rounds: number
  /** Gone when the bench has ended. */
  readonly folder: string
  readonly disk: string
  readonly memoryMib: number
  readonly kernel: GuestKernel
  readonly runtime: Runtime
  readonly create: () => Promise<Box>
}

export const rootOf = (disk: string, memoryMib: number): BoxCreateOptions => ({
  rootfs: { disk, format: 'raw' },
  memory: `${memoryMib}M`,
})

export async function withBench<T>(rounds: number, work: (bench: Bench) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'sluicebox-bench-'))
  try {
    const [disk, memoryMib] = [join(folder, 'root.raw'), 256]
    await makeGuestDisk(disk, 'bench')
    // Cold is what boots.
    await using runtime = new Runtime({ home: join(folder, 'home'), isolation: 'vm', templates: false })
    const create = () => runtime.create(rootOf(disk, memoryMib))
    return await work({ rounds, folder, disk, memoryMib, kernel: await guestKernel(runtime), runtime, create })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
