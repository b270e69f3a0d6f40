// The tour's last part: a virtual machine on an overlay that our engine wrote, moved to a new base while it runs, and cloned.
import { copyFile, open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Box, type Runtime, SluiceboxError } from 'sluicebox'
import { makeGuestDisk } from './guest-disk.js'
import { mib, timed } from './machine.js'
import { progressBar, say } from './screen.js'

type ExpectSame = (what: string, got: unknown, wanted: unknown) => void

/** Writes numbers, reads them back through the disk, and says whether they are the same. */
const WRITER = `n=0; while :; do n=$((n+1)); seq $n 5000 > /root/f; sync; echo 3 > /proc/sys/vm/drop_caches
  [ "$(seq $n 5000 | md5sum)" = "$(md5sum < /root/f)" ] && echo ok $n || echo WRONG $n; done`
const HASH = 'find /bin /etc -type f -exec md5sum {} + | sort | md5sum'

export async function tourMachines(runtime: Runtime, folder: string, expectSame: ExpectSame): Promise<void> {
  const { hypervisor } = await runtime.doctor()
  if (!hypervisor.name || !hypervisor.kernel) {
    say('13. A virtual machine: left out, since this host has no QEMU or no kernel for it')
    return
  }
  say('13. A virtual machine, on an overlay of its own over a disk made from a directory')
  const base = join(folder, 'guest-1.raw')
  await makeGuestDisk(base, 'made from a directory')
  const [box, boot] = await timed(() =>
    runtime.create({ isolation: 'vm', name: 'machine', rootfs: { disk: base, format: 'raw' } }),
  )
  const { accel, diskPath } = await box.info()
  say(`  up after ${(boot / 1000).toFixed(1)} s (${accel}), ${(await box.run(['uname', '-srm'])).stdout}`)
  const steps = await box.exec(['sh', '-c', 'cat /etc/motd; for n in 1 2 3; do echo "step $n"; sleep 0.2; done'])
  for await (const line of steps.lines()) say(`  | ${line}`)
  expectSame('a program in it streams and ends', (await steps.wait()).exitCode, 0)

  say('14. Its disk belongs to it while it runs')
  const refused = await runtime.images.check(diskPath as string).catch((error: unknown) => error)
  expectSame('nobody else may have it', SluiceboxError.is(refused) && refused.code, 'IMAGE_LOCKED')

  say('15. It moves to a new base while a program writes, and reads back what it wrote')
  const next = join(folder, 'guest-2.raw')
  await copyFile(base, next)
  await scribble(next)
  const before = (await box.shell(HASH)).stdout
  const writer = await box.exec(['sh', '-c', WRITER])
  const said: string[] = []
  writer.on('stdout', (chunk) => said.push(...String(chunk).split('\n').filter(Boolean)))
  await writer.waitForLine(/^ok 2$/)
  const bar = progressBar()
  const moved = await runtime.rebase(box, { backing: next, backingFormat: 'raw', onProgress: bar.show })
  bar.end()
  await writer.waitForLine(/^ok \d+$/)
  await writer.kill('SIGKILL')
  await writer.wait()
  say(
    `  ${moved.clustersCompared} clusters compared, ${moved.clustersCopied} copied; it stood still for ${moved.pausedMs?.toFixed(1)} ms`,
  )
  expectSame('the writer read no wrong byte', said.filter((line) => line.startsWith('WRONG')).length, 0)
  expectSame('every file is as it was', (await box.shell(HASH)).stdout, before)

  say('16. It turns itself off, and its overlay is an image like any other')
  // In order, however slow its emulated processor is.
  await box.stop({ timeoutMs: 300_000 })
  const { backing } = await runtime.images.info(diskPath as string)
  say(`  ${diskPath?.slice(folder.length + 1)} over ${backing?.path.slice(folder.length + 1)}`)
  expectSame('it is sound', (await runtime.images.check(diskPath as string)).ok, true)
  await box.start()
  expectSame('and boots from the new base with the same files', (await box.shell(HASH)).stdout, before)

  say('17. A clone goes on from its memory')
  await cloneIt(box, expectSame)
  await box.remove({ force: true })
  expectSame('nothing is left of it', (await readdir(join(runtime.home, 'boxes'))).length, 0)
}

/** What was warmed up once is there at once, in a machine that is another one. */
async function cloneIt(box: Box, expectSame: ExpectSame): Promise<void> {
  await box.shell('seq 100000 | md5sum > /dev/shm/warm')
  const snapshot = await box.snapshot('warm', { memory: true })
  say(`  kept in ${(snapshot.bytes / mib).toFixed(0)} MiB; it stood still for ${snapshot.pausedMs.toFixed(1)} ms`)
  const look = 'cat /dev/shm/warm; hostname; head -c 8 /dev/urandom | md5sum'
  const [clone, up] = await timed(() => box.clone({ from: 'warm' }))
  const [said, exec] = await timed(() => clone.shell(look))
  say(`  a clone was up after ${up.toFixed(0)} ms, and its first exec took ${exec.toFixed(0)} ms`)
  const [warm, ...own] = said.stdout.split('\n')
  const [same, ...its] = (await box.shell(look)).stdout.split('\n')
  expectSame('it has what was warmed up', warm, same)
  expectSame('but a name and random numbers of its own', own.filter((line) => its.includes(line)).length, 0)
  await clone.remove({ force: true })
}

/** Another base has other bytes, here and there. */
async function scribble(path: string): Promise<void> {
  const file = await open(path, 'r+')
  for (let at = 24 * mib; at < 60 * mib; at += 3 * mib) await file.write(Buffer.alloc(65_536, 0xa5), 0, 65_536, at)
  await file.close()
}
