// runtime.rebase(box): the disk of a machine moves to another base, while it runs and while it stands.
import { copyFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { expect, test } from 'vitest'
import type { Box } from '../../../lib/index.js'
import { runtimeOver, soon } from '../../support/boxes.js'
import { hashOf, makeFolder } from '../../support/folder.js'
import { BOOT, ORDERLY } from '../../support/machine.js'
import { machineRoot } from '../../support/machine-root.js'
import { rejection, settled } from '../../support/producer.js'
import { qemuImg } from '../../support/qemu.js'

/** A base whose bytes differ from the root's in many places, also where the root has files. */
async function otherBase(path: string): Promise<void> {
  copyFileSync(machineRoot(), path)
  const file = await open(path, 'r+')
  for (let at = 64 << 20; at < 320 << 20; at += 4 << 20) await file.write(Buffer.alloc(65_536, 0xa5), 0, 65_536, at)
  await file.close()
}

/** Writes numbered blocks and reads each back through the disk; says what it has verified, and the first that was wrong. */
const writer = `
i=0
while :; do
  i=$((i+1))
  seq $i $((i+2000)) > /work/new && sync && mv /work/new /work/block
  echo 3 > /proc/sys/vm/drop_caches
  seq $i $((i+2000)) | md5sum > /work/want
  md5sum < /work/block > /work/have
  if [ "$(cat /work/want)" = "$(cat /work/have)" ]; then echo ok $i; else echo WRONG $i; exit 1; fi
done`

const rootHash = async (box: Box) =>
  (await box.shell('find /bin /lib /lib64 /etc -type f -exec md5sum {} + | sort | md5sum')).stdout

test.each(['raw', 'qcow2'] as const)(
  'B36: a running machine moves to a %s base under a verifying writer, which sees no wrong byte',
  async (format) => {
    const folder = makeFolder()
    await otherBase(folder('other.raw'))
    const backing = format === 'raw' ? folder('other.raw') : folder('other.qcow2')
    if (format === 'qcow2') await qemuImg('convert', '-O', 'qcow2', folder('other.raw'), backing)
    const runtime = runtimeOver('machine')
    const box = await runtime.create({ name: 'web' })
    const before = await rootHash(box)
    const bytes = await hashOf(backing)
    await box.run(['mkdir', '/work'])
    const running = await box.exec(['sh', '-c', writer])
    const said: string[] = []
    running.on('stdout', (chunk) => said.push(...String(chunk).split('\n').filter(Boolean)))
    await running.waitForLine(/^ok 3$/)
    const phases: string[] = []
    const result = await runtime.rebase(box, {
      backing,
      backingFormat: format,
      onProgress: ({ phase }) => phases.push(phase),
    })
    expect(result).toMatchObject({
      from: machineRoot(),
      to: backing,
      backingFormat: format,
      mode: 'safe',
      dryRun: false,
    })
    expect(result.clustersCopied).toBeGreaterThan(0)
    expect(result.pausedMs).toBeGreaterThan(0)
    // A small part of the move, however slow the host.
    expect(result.pausedMs).toBeLessThan(result.durationMs / 2)
    expect(new Set(phases)).toContain('header')
    await running.waitForLine(/^ok \d+$/)
    expect(said.filter((line) => !line.startsWith('ok'))).toEqual([])
    // Read anew, off the new chain: what its base has otherwise was copied.
    await box.shell('sync; echo 3 > /proc/sys/vm/drop_caches', { check: true })
    expect(await rootHash(box)).toBe(before)
    expect(await rejection(runtime.rebase(box, { backing, backingFormat: format, mode: 'unsafe' }))).toMatchObject({
      code: 'BOX_STATE',
    })
    expect(await rejection(runtime.rebase(box, { backing: null }))).toMatchObject({ code: 'UNSUPPORTED' })
    // And back, to another copy of the first.
    copyFileSync(machineRoot(), folder('copy.raw'))
    await runtime.rebase(box, { backing: folder('copy.raw'), backingFormat: 'raw' })
    await running.kill('SIGKILL')
    await running.wait()
    expect(await rootHash(box)).toBe(before)
    const { diskPath } = await box.info()
    await box.stop(ORDERLY)
    expect(await runtime.images.check(diskPath as string)).toMatchObject({ ok: true })
    await qemuImg('check', diskPath as string)
    await box.start(BOOT)
    expect(await rootHash(box)).toBe(before)
    expect((await box.shell('md5sum < /work/block')).stdout.length).toBeGreaterThan(0)
    expect(await hashOf(backing)).toBe(bytes)
  },
)

test('B36: a machine that stands moves by the image engine, and then starts and reads the same bytes', async () => {
  const folder = makeFolder()
  await otherBase(folder('other.raw'))
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'web' })
  await box.shell('echo mine > /mine; sync')
  const before = await rootHash(box)
  await box.stop(ORDERLY)
  const result = await runtime.rebase(box, { backing: folder('other.raw'), backingFormat: 'raw' })
  expect(result.pausedMs).toBe(undefined)
  expect(result.clustersCopied).toBeGreaterThan(0)
  await box.start(BOOT)
  expect(await rootHash(box)).toBe(before)
  expect((await box.run(['cat', '/mine'])).stdout).toBe('mine')
})

test('a live rebase that is aborted, or cannot be, leaves the machine as it was', async () => {
  const folder = makeFolder()
  await otherBase(folder('other.raw'))
  const runtime = runtimeOver('machine')
  let box: Box | undefined
  let before = ''
  let end: PromiseSettledResult<unknown> | undefined
  // The abort may come after the end on a busy host: then once more, with another machine.
  for (let round = 0; round < 5 && end?.status !== 'rejected'; round++) {
    await box?.remove({ force: true })
    box = await runtime.create({ name: 'web' })
    before = await rootHash(box)
    const abort = new AbortController()
    const aborted = runtime.rebase(box, {
      backing: folder('other.raw'),
      backingFormat: 'raw',
      signal: abort.signal,
      onProgress: ({ done }) => done > 0 && abort.abort(),
    })
    end = await settled(aborted)
  }
  if (!box) throw new Error('no machine')
  expect(end).toMatchObject({ status: 'rejected', reason: { name: 'AbortError' } })
  expect(await rejection(runtime.rebase(box, { backing: folder('none.raw') }))).toMatchObject({
    code: 'IMAGE_NOT_FOUND',
  })
  expect(await rejection(runtime.rebase(box, { backing: folder('other.raw'), disk: '/dev/vdz' }))).toMatchObject({
    argument: 'disk',
  })
  expect(await rootHash(box)).toBe(before)
  await box.restart(ORDERLY)
  expect(await rootHash(box)).toBe(before)
})

test('B36: dry runs, moves at the same time and moves after an aborted one leave a machine that starts again', async () => {
  const folder = makeFolder()
  await otherBase(folder('other.raw'))
  copyFileSync(machineRoot(), folder('copy.raw'))
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'web' })
  const before = await rootHash(box)
  const to = (name: string) => ({ backing: folder(name), backingFormat: 'raw' as const })
  const dry = await runtime.rebase(box, { ...to('other.raw'), dryRun: true })
  expect(dry).toMatchObject({ dryRun: true, to: folder('other.raw') })
  expect(dry.pausedMs).toBe(undefined)
  await box.restart(ORDERLY)
  const ends = await Promise.allSettled([runtime.rebase(box, to('other.raw')), runtime.rebase(box, to('copy.raw'))])
  expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  for (const end of ends) if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'IN_USE' })
  await box.restart(ORDERLY)
  const abort = new AbortController()
  const onProgress = ({ done }: { done: number }) => done > 0 && abort.abort()
  const aborted = runtime.rebase(box, { ...to('other.raw'), signal: abort.signal, onProgress }).catch(() => undefined)
  await soon(aborted, 'the abort')
  await runtime.rebase(box, to('copy.raw'))
  await runtime.rebase(box, to('other.raw'))
  await box.restart(ORDERLY)
  expect(await rootHash(box)).toBe(before)
})
