// rebase through a Runtime: the guest reads the same bytes, and every path, mode and refusal is as documented.
import { closeSync, openSync, realpathSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { relative } from 'node:path'
import { expect, test } from 'vitest'
import { bytesOf, makeFolder } from '../../support/folder.js'
import { openRuntime, rejection, settled } from '../../support/producer.js'
import { guestHash, program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'

const MIB = 2 ** 20

/** Two bases that differ in places, and an overlay with data, zeros and a compressed cluster of its own. */
async function overlayOverTwoBases(folder: (name?: string) => string, options: string[] = []): Promise<string> {
  const base = Buffer.alloc(8 * MIB)
  for (let i = 0; i < base.length; i += 4096) base.writeUInt32LE(i, i)
  writeFileSync(folder('old.raw'), base)
  base.fill(0x77, MIB, 2 * MIB)
  base.fill(0, 3 * MIB, 4 * MIB)
  writeFileSync(folder('new.raw'), base.subarray(0, 6 * MIB))
  const overlay = folder('overlay.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', ...options, '-b', 'old.raw', '-F', 'raw', overlay)
  await qemuIo(overlay, ['write -P 1 1536K 64K', 'write -z 5M 256K', 'write -c -P 3 7M 64K', 'write -P 4 100K 1K'])
  return overlay
}

test.each([
  [[]],
  [['-o', 'cluster_size=4k']],
  [['-o', 'compat=0.10']],
  [['-o', 'refcount_bits=1']],
  [['-o', 'refcount_bits=64']],
  [['-o', 'extended_l2=on']],
])('I16, I23, I27: a safe rebase with %j leaves what the guest reads, and the bases untouched', async (options) => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const overlay = await overlayOverTwoBases(folder, options)
  const guest = await guestHash(overlay)
  const bases = ['old.raw', 'new.raw'].map((name) => [bytesOf(folder(name)), statSync(folder(name)).mtimeMs])
  const dry = await runtime.rebase(overlay, { backing: 'new.raw', backingFormat: 'raw', dryRun: true })
  const result = await runtime.rebase(overlay, { backing: 'new.raw', backingFormat: 'raw' })
  expect(result).toMatchObject({
    from: 'old.raw',
    to: 'new.raw',
    mode: 'safe',
    dryRun: false,
    format: 'qcow2',
    backingFormat: 'raw',
    path: overlay,
  })
  expect(result.clustersCopied).toBeGreaterThan(0)
  expect({ ...dry, dryRun: false, durationMs: 0 }).toEqual({ ...result, durationMs: 0 })
  expect(await guestHash(overlay)).toBe(guest)
  expect((await qemuInfo(overlay))['backing-filename']).toBe('new.raw')
  expect((await program('qemu-img', ['check', overlay])).code).toBe(0)
  expect(await runtime.images.check(overlay)).toMatchObject({ ok: true })
  expect(['old.raw', 'new.raw'].map((name) => [bytesOf(folder(name)), statSync(folder(name)).mtimeMs])).toEqual(bases)
})

test('I29: dryRun writes nothing', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const overlay = await overlayOverTwoBases(folder)
  const before = [bytesOf(overlay), statSync(overlay).mtimeMs]
  const result = await runtime.rebase(overlay, { backing: 'new.raw', backingFormat: 'raw', dryRun: true })
  expect(result).toMatchObject({ dryRun: true })
  expect([bytesOf(overlay), statSync(overlay).mtimeMs]).toEqual(before)
})

test('I17, I24: unsafe changes the pointer only and opens nothing; with nothing to copy safe does so too', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const overlay = await overlayOverTwoBases(folder)
  const old = statSync(overlay).size
  const unsafe = await runtime.rebase(overlay, { backing: 'not-there.raw', backingFormat: 'raw', mode: 'unsafe' })
  expect(unsafe).toMatchObject({ mode: 'unsafe', clustersCompared: 0, clustersCopied: 0, to: 'not-there.raw' })
  expect(statSync(overlay).size).toBe(old)
  await runtime.rebase(overlay, { backing: 'old.raw', backingFormat: 'raw', mode: 'unsafe' })
  const same = await runtime.rebase(overlay, { backing: folder('old.raw'), backingFormat: 'raw' })
  expect(same).toMatchObject({ clustersCopied: 0, bytesCopied: 0, to: folder('old.raw') })
  expect((await qemuInfo(overlay))['backing-filename']).toBe(folder('old.raw'))
})

test.each([null, ''])('I18: a backing of %j detaches, with all that came from the chain copied in', async (backing) => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const overlay = await overlayOverTwoBases(folder)
  const guest = await guestHash(overlay)
  expect(await runtime.rebase(overlay, { backing })).toMatchObject({ to: null, backingFormat: null, from: 'old.raw' })
  expect(await qemuInfo(overlay)).not.toHaveProperty('backing-filename')
  expect(await runtime.images.info(overlay)).not.toHaveProperty('backing')
  expect(await guestHash(overlay)).toBe(guest)
})

test('I20: a relative backing is the overlay’s neighbour wherever the process stands, and is stored as typed', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const elsewhere = makeFolder()
  const overlay = await overlayOverTwoBases(folder)
  const guest = await guestHash(overlay)
  writeFileSync(elsewhere('new.raw'), 'a decoy')
  const from = process.cwd()
  process.chdir(elsewhere())
  try {
    // The overlay is named relative to the cwd of the call, even when that changes before the call runs.
    const call = runtime.rebase(relative(elsewhere(), overlay), { backing: './new.raw', backingFormat: 'raw' })
    process.chdir('/')
    expect((await call).to).toBe('./new.raw')
  } finally {
    process.chdir(from)
  }
  const seen = await qemuInfo(overlay)
  expect(seen['backing-filename']).toBe('./new.raw')
  const { backing } = await runtime.images.info(overlay)
  expect(backing?.path).toBe('./new.raw')
  expect(realpathSync(backing?.resolvedPath ?? '')).toBe(folder('new.raw'))
  expect(await guestHash(overlay)).toBe(guest)
})

test('I21, I22, I26: a missing, endless or cyclic backing is refused before anything is written', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const overlay = await overlayOverTwoBases(folder)
  await runtime.images.create(folder('child.qcow2'), { format: 'qcow2', backing: { path: overlay, format: 'qcow2' } })
  const before = bytesOf(overlay)
  const refusals: [string, string][] = [
    ['missing.raw', 'IMAGE_NOT_FOUND'],
    [overlay, 'IMAGE_CHAIN'],
    ['child.qcow2', 'IMAGE_CHAIN'],
    ['x'.repeat(1024), 'INVALID_ARGUMENT'],
  ]
  for (const [backing, code] of refusals) {
    const format = backing.endsWith('.qcow2') ? 'qcow2' : 'raw'
    const error = await rejection(runtime.rebase(overlay, { backing, backingFormat: format }))
    expect(error, backing.slice(0, 20)).toMatchObject({ code, op: 'rebase' })
  }
  expect(bytesOf(overlay)).toBe(before)
})

test('I25: a chain of 16 images works and one of 17 is IMAGE_CHAIN', async () => {
  const { images } = openRuntime()
  const folder = makeFolder()
  await images.create(folder('0'), { format: 'qcow2', size: '1M' })
  for (let depth = 1; depth < 16; depth++)
    await images.create(folder(`${depth}`), { format: 'qcow2', backing: { path: `${depth - 1}`, format: 'qcow2' } })
  expect((await images.info(folder('15'), { chain: true })).chain?.length).toBe(16)
  const tooDeep = images.create(folder('16'), { format: 'qcow2', backing: { path: '15', format: 'qcow2' } })
  expect(await rejection(tooDeep)).toMatchObject({ code: 'IMAGE_CHAIN' })
  await images.create(folder('own'), { format: 'qcow2', size: '1M' })
  const rebase = images.rebase(folder('own'), { backing: '15', backingFormat: 'qcow2' })
  expect(await rejection(rebase)).toMatchObject({ code: 'IMAGE_CHAIN' })
  expect(await images.rebase(folder('own'), { backing: '14', backingFormat: 'qcow2' })).toMatchObject({ to: '14' })
})

test('I28: an overlay of a format without backing is UNSUPPORTED', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  await runtime.images.create(folder('raw'), { format: 'raw', size: '1M' })
  expect(await rejection(runtime.rebase(folder('raw'), { backing: 'x', format: 'raw' }))).toMatchObject({
    code: 'UNSUPPORTED',
  })
})

test('I14: a raw backing is never guessed, and a recognised header decides', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const overlay = await overlayOverTwoBases(folder)
  expect(await rejection(runtime.rebase(overlay, { backing: 'new.raw' }))).toMatchObject({
    hint: expect.stringContaining('backingFormat'),
  })
  await runtime.images.create(folder('new.qcow2'), { format: 'qcow2', size: '8M' })
  expect(await runtime.rebase(overlay, { backing: 'new.qcow2' })).toMatchObject({ backingFormat: 'qcow2' })
})

test('Q17: the progress of a rebase never goes down, ends at its total, and none comes after the settlement', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const overlay = await overlayOverTwoBases(folder)
  const seen: { done: number; total: number | null; elapsedMs: number }[] = []
  let over = false
  await runtime.rebase(overlay, {
    backing: null,
    onProgress: (progress) => {
      expect(over).toBe(false)
      seen.push(progress)
    },
  })
  over = true
  expect(seen.length).toBeGreaterThan(0)
  for (const [index, { done, total, elapsedMs }] of seen.entries()) {
    expect(done).toBeGreaterThanOrEqual(seen[index - 1]?.done ?? 0)
    expect(elapsedMs).toBeGreaterThanOrEqual(seen[index - 1]?.elapsedMs ?? 0)
    if (total !== null) expect(done).toBeLessThanOrEqual(total)
  }
  expect(runtime.stats().drain.listenerErrors).toBe(0)
})

test('I53, H33: a rebase cancelled at its first progress rejects with the reason, and the guest reads the same', async () => {
  const folder = makeFolder()
  const overlay = folder('overlay.qcow2')
  for (const name of ['old.raw', 'new.raw']) {
    const file = openSync(folder(name), 'w')
    for (let i = 0; i < 64; i++) writeSync(file, Buffer.alloc(MIB, name === 'old.raw' ? i + 1 : i + 100))
    closeSync(file)
  }
  const anew = () => qemuImg('create', '-q', '-f', 'qcow2', '-b', 'old.raw', '-F', 'raw', overlay)
  await anew()
  const guest = await guestHash(overlay)
  const outcomes: string[] = []
  const moments = [0, 0.2, 0.5, 0.9]
  while (moments.length > 0) {
    const [at = 0] = moments
    const runtime = openRuntime()
    const controller = new AbortController()
    const reason = new Error('enough')
    const call = runtime.rebase(overlay, {
      backing: 'new.raw',
      backingFormat: 'raw',
      signal: controller.signal,
      onProgress: ({ done, total }) => {
        if (total !== null && done >= total * at) controller.abort(reason)
      },
    })
    const outcome = await settled(call)
    outcomes.push(outcome.status)
    if (outcome.status === 'rejected') expect(outcome.reason).toBe(reason)
    const { backing } = await runtime.images.info(overlay)
    expect(backing?.path).toBe(outcome.status === 'rejected' ? 'old.raw' : 'new.raw')
    expect(await guestHash(overlay)).toBe(guest)
    expect(await runtime.images.check(overlay)).toMatchObject({ corruptions: 0 })
    // Nothing holds it any more.
    await qemuIo(overlay, ['read 0 64K'])
    await runtime.close()
    if (outcome.status === 'rejected') moments.shift()
    // The first cancel may come after the end on a busy host: then once more.
    else if (outcomes.includes('rejected') || outcomes.length === 5) break
    else await anew()
  }
  expect(outcomes).toContain('rejected')
})

test('I29: a result says what its call asked for, whatever became of the options object meanwhile', async () => {
  const folder = makeFolder()
  const { images } = openRuntime()
  for (const name of ['a', 'b']) await images.create(folder(name), { format: 'qcow2', size: '1M' })
  await images.create(folder('overlay'), { format: 'qcow2', backing: { path: 'a', format: 'qcow2' } })
  const options = { backing: 'b', backingFormat: 'qcow2' as const, dryRun: true, mode: 'safe' as 'safe' | 'unsafe' }
  const dry = images.rebase(folder('overlay'), options)
  Object.assign(options, { dryRun: false, mode: 'unsafe' })
  expect(await dry).toMatchObject({ dryRun: true, mode: 'safe' })
  const real = images.rebase(folder('overlay'), options)
  Object.assign(options, { dryRun: true, mode: 'safe' })
  expect(await real).toMatchObject({ dryRun: false, mode: 'unsafe', to: 'b' })
})
