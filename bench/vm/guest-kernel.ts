// The kernel that our machines boot, and modules of it in the order in which they load.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Runtime } from 'sluicebox'

export interface GuestKernel {
  readonly image: string
  readonly modules: string
}
export interface KernelModule {
  readonly name: string
  readonly path: string
}

const guest = new URL('../../../guest', import.meta.url).pathname
const places = [
  { images: guest, modules: join(guest, 'modules') },
  { images: '/boot', modules: '/lib/modules' },
]

export async function guestKernel(runtime: Runtime): Promise<GuestKernel> {
  const { hypervisor, problems } = await runtime.doctor()
  const { kernel } = hypervisor
  for (const { images, modules } of places) {
    const image = join(images, `vmlinuz-${kernel}`)
    if (kernel && existsSync(image)) return { image, modules: join(modules, kernel) }
  }
  throw new Error(`there is no kernel of virtual machines: ${JSON.stringify(problems)}`)
}

/** Those and what they need, each after what it needs itself, without what is built into the kernel. */
export function modulesOf(kernel: GuestKernel, wanted: readonly string[]): KernelModule[] {
  const nameOf = (path: string) =>
    basename(path)
      .replace(/\.ko.*/, '')
      .replaceAll('-', '_')
  const builtin = new Set(readFileSync(join(kernel.modules, 'modules.builtin'), 'utf8').split('\n').map(nameOf))
  const files = readdirSync(join(kernel.modules, 'kernel'), { recursive: true, encoding: 'utf8' })
  const paths = new Map(files.filter((path) => path.endsWith('.ko')).map((path) => [nameOf(path), path]))
  const order = new Map<string, KernelModule>()
  const add = (name: string) => {
    if (builtin.has(name) || order.has(name)) return
    const found = paths.get(name)
    if (!found) throw new Error(`the kernel of virtual machines has no module ${name} in ${kernel.modules}`)
    const path = join(kernel.modules, 'kernel', found)
    // As .modinfo has it: key=value, each with a zero byte at its end.
    const needs = /\0depends=([^\0]*)\0/.exec(readFileSync(path, 'latin1'))?.[1] ?? ''
    for (const need of needs.split(',').filter(Boolean)) add(need.replaceAll('-', '_'))
    order.set(name, { name, path })
  }
  for (const name of wanted) add(name)
  return [...order.values()]
}
