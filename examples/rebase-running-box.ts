// You will see a virtual machine's disk move to a new base while a program in it writes, and reads back what it wrote.
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { Runtime } from 'sluicebox'
import { makeGuestDisk } from './support/guest-disk.js'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-live-'))
const runtime = new Runtime({ home: join(folder, 'home') })
const [from, to] = [join(folder, 'debian-12.0.raw'), join(folder, 'debian-12.1.raw')]
const writer = `n=0; while :; do n=$((n+1)); seq $n 5000 > /root/f; sync; echo 3 > /proc/sys/vm/drop_caches
  [ "$(seq $n 5000 | md5sum)" = "$(md5sum < /root/f)" ] && echo ok $n || echo WRONG $n; done`
try {
  await makeGuestDisk(from, 'hello')
  await copyFile(from, to)
  const box = await runtime.create({ isolation: 'vm', rootfs: { disk: from, format: 'raw' } })
  const program = await box.exec(['sh', '-c', writer])
  let wrong = 0
  program.on('stdout', (chunk) => {
    wrong += String(chunk).split('WRONG').length - 1
  })
  await program.waitForLine(/^ok 2$/)

  const moved = await runtime.rebase(box, { backing: to, backingFormat: 'raw' })
  console.log(`moved from ${basename(moved.from ?? '')} to ${basename(moved.to ?? '')} under a writer`)
  console.log(`stood still for ${moved.pausedMs?.toFixed(1)} of the ${moved.durationMs.toFixed(1)} ms that it took`)
  await program.waitForLine(/^ok \d+$/)
  console.log(`wrong reads: ${wrong}`)
} finally {
  await runtime.close()
  await rm(folder, { recursive: true })
}
