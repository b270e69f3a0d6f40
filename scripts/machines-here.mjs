// What this host lacks for virtual machines, as the built SDK finds it: QEMU or a kernel. Tests that need one are then skipped by name.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './shell.mjs'

/** undefined: nothing. */
export async function missingForMachines() {
  const { Runtime } = await import(join(root, 'dist/index.js'))
  const home = mkdtempSync(join(tmpdir(), 'sluicebox-doctor-'))
  const runtime = new Runtime({ home: join(home, 'home') })
  try {
    const { hypervisor } = await runtime.doctor()
    const missing = [
      ...(hypervisor.name === null ? ['QEMU'] : []),
      ...(hypervisor.kernel === null ? ['a kernel for virtual machines'] : []),
    ]
    return missing.length > 0 ? missing.join(' and ') : undefined
  } finally {
    await runtime.close()
    rmSync(home, { recursive: true, force: true })
  }
}
