// You will see three machines go on from the warmed-up memory of one, each under a name and with random numbers of its own.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'
import { makeGuestDisk } from './support/guest-disk.js'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-clone-'))
const runtime = new Runtime({ home: join(folder, 'home') })
const look = 'hostname; cat /dev/shm/warm; head -c 8 /dev/urandom | md5sum'
try {
  await makeGuestDisk(join(folder, 'root.raw'), 'hello')
  const rootfs = { disk: join(folder, 'root.raw'), format: 'raw' } as const
  const warm = await runtime.create({ isolation: 'vm', name: 'warm', rootfs })
  await warm.shell('seq 100000 | md5sum | cut -c 1-8 > /dev/shm/warm')
  const { pausedMs } = await warm.snapshot('ready', { memory: true })
  console.log(`the guest stood still for ${pausedMs.toFixed(1)} ms`)

  const started = performance.now()
  const results = await warm.clone({ from: 'ready', count: 3 })
  const clones = results.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  console.log(`${clones.length} clones of ${results.length} in ${(performance.now() - started).toFixed(0)} ms`)

  const said: string[][] = [(await warm.shell(look)).stdout.split('\n')]
  for (const clone of clones) {
    const asked = performance.now()
    said.push((await clone.shell(look)).stdout.split('\n'))
    console.log(`${said.at(-1)?.slice(0, 2).join(' has ')}: first exec ${(performance.now() - asked).toFixed(0)} ms`)
  }
  const different = (line: number) => new Set(said.map((lines) => lines[line])).size
  console.log(`host names: ${different(0)}, warm files: ${different(1)}, random numbers: ${different(2)}`)
} finally {
  await runtime.close()
  await rm(folder, { recursive: true })
}
