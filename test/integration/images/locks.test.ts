// Who may use an image at once: QEMU's own locks, both ways, and ours among ourselves.
import { closeSync, existsSync, openSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { runModule } from '../../support/child.js'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection, settled } from '../../support/producer.js'
import { holdInQemu, program, qemuImg } from '../../support/qemu.js'

const MIB = 2 ** 20

test('I39, I54: an image that a live qemu-io holds is IMAGE_LOCKED for every call that writes, and shared info reads it', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  const path = folder('image')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
  const holder = await holdInQemu(path)
  const before = bytesOf(path)
  for (const call of [
    () => images.rebase(path, { backing: null }),
    () => images.rebase(path, { backing: 'x', backingFormat: 'raw', mode: 'unsafe' }),
    () => images.commit(path),
    () => images.resize(path, '2M'),
    () => images.check(path, { repair: 'all' }),
    () => images.check(path),
    () => images.info(path),
    () => images.create(path, { format: 'qcow2', size: '2M', overwrite: true }),
  ])
    expect(await rejection(call())).toMatchObject({ code: 'IMAGE_LOCKED', path })
  expect(await images.info(path, { shared: true })).toMatchObject({ virtualBytes: MIB, format: 'qcow2' })
  expect(bytesOf(path)).toBe(before)
  await holder.release()
  expect(await images.check(path, { repair: 'all' })).toMatchObject({ ok: true })
})

test('I40: a reader in QEMU and readers of ours share an image', async () => {
  const { images } = openRuntime({ workers: 4 })
  const path = makeFolder()('image')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
  await holdInQemu(path, { readOnly: true })
  const reads = [images.info(path), images.check(path), images.info(path, { chain: true }), images.check(path)]
  expect((await settled(Promise.all(reads))).status).toBe('fulfilled')
  expect(await rejection(images.check(path, { repair: 'all' }))).toMatchObject({ code: 'IMAGE_LOCKED' })
})

/** An overlay whose rebase has 192 MiB to copy, so that others come in its midst; anew where there is one. */
function bigOverlay(folder: (name?: string) => string): Promise<unknown> {
  for (const [name, byte] of [
    ['old.raw', 1],
    ['new.raw', 2],
  ] as const)
    if (!existsSync(folder(name))) writeFileSync(folder(name), Buffer.alloc(192 * MIB, byte))
  return qemuImg('create', '-q', '-f', 'qcow2', '-b', 'old.raw', '-F', 'raw', folder('overlay.qcow2'))
}

test('I39, I40: while a rebase runs, qemu-img and another rebase are refused; closing another fd of the file changes nothing', async () => {
  const runtime = openRuntime({ workers: 2 })
  const folder = makeFolder()
  const overlay = folder('overlay.qcow2')
  let second: PromiseSettledResult<unknown> | undefined
  let cameLate = true
  // On a busy host the second may come after the first's end, where nothing refuses it: then once more.
  for (let round = 0; round < 5 && second?.status !== 'rejected' && cameLate; round++) {
    await bigOverlay(folder)
    let isOver = false
    let first: Promise<unknown> | undefined
    await new Promise<void>((resolve) => {
      const over = () => {
        isOver = true
        resolve()
      }
      first = runtime.rebase(overlay, { backing: 'new.raw', backingFormat: 'raw', onProgress: () => resolve() })
      first.then(over, over)
    })
    closeSync(openSync(overlay, 'r'))
    const call = settled(runtime.rebase(overlay, { backing: null, mode: 'unsafe' }))
    const qemu = program('qemu-img', ['check', overlay])
    second = await call
    cameLate = isOver
    const { code, stderr } = await qemu
    // Only a qemu-img that came after the end may have been let in; it must then have seen a sound image.
    if (code !== 0) expect(stderr).toMatch(/lock/i)
    expect((await settled(first as Promise<unknown>)).status).toBe('fulfilled')
    expect((await program('qemu-img', ['check', overlay])).code).toBe(0)
  }
  expect(second).toMatchObject({ status: 'rejected', reason: { code: 'IMAGE_LOCKED' } })
})

test('I39: a lock dies with its process', async () => {
  const folder = makeFolder()
  const overlay = folder('overlay.qcow2')
  await bigOverlay(folder)
  const ended = await runModule(
    `
    const runtime = new Runtime()
    runtime.rebase(process.argv[1], {
      backing: 'new.raw', backingFormat: 'raw', onProgress: () => process.kill(process.pid, 'SIGKILL'),
    })
  `,
    { args: [overlay] },
  )
  expect(ended.signal).toBe('SIGKILL')
  expect((await program('qemu-img', ['check', overlay])).code).toBe(0)
  const { images } = openRuntime()
  expect(await images.check(overlay, { repair: 'all' })).toMatchObject({ corruptions: 0 })
})

test('I40: of eight rebases of one image at once all but one at a time are IMAGE_LOCKED, and it is sound after', async () => {
  const runtime = openRuntime({ workers: 8 })
  const folder = makeFolder()
  await runtime.images.create(folder('base'), { format: 'qcow2', size: '64M' })
  await runtime.images.create(folder('top'), { format: 'qcow2', backing: { path: 'base', format: 'qcow2' } })
  const outcomes = await Promise.allSettled(
    Array.from({ length: 8 }, () => runtime.rebase(folder('top'), { backing: 'base', backingFormat: 'qcow2' })),
  )
  expect(outcomes.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThan(0)
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'IMAGE_LOCKED', op: 'rebase' })
  expect(await runtime.images.check(folder('top'))).toMatchObject({ ok: true })
})
