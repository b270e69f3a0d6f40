// You will see a virtual machine boot from a disk, write to an overlay of its own, keep it over a restart, and leave the disk as it was.
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'
import { makeGuestDisk } from './support/guest-disk.js'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-vm-disk-'))
const runtime = new Runtime({ home: join(folder, 'home') })
try {
  const disk = join(folder, 'root.raw')
  await makeGuestDisk(disk, 'hello')
  const hash = async () =>
    createHash('sha256')
      .update(await readFile(disk))
      .digest('hex')
  const before = await hash()

  const box = await runtime.create({ isolation: 'vm', name: 'web', rootfs: { disk, format: 'raw' } })
  console.log((await box.run(['uname', '-srm'])).stdout)
  await box.shell('echo written in a machine > /root/note')
  // In order, however slow an emulated processor is.
  await box.stop({ timeoutMs: 300_000 })

  // Stopped, its overlay is an image like any other.
  const { diskPath } = await box.info()
  console.log(`the overlay is sound: ${(await runtime.images.check(diskPath as string)).ok}`)
  await box.start()
  console.log(`kept: ${(await box.run(['cat', '/root/note'])).stdout}`)
  console.log(`the base is as it was: ${(await hash()) === before}`)
} finally {
  await runtime.close()
  await rm(folder, { recursive: true })
}
