// Images under a process that is killed and a disk that is full.
import { existsSync, readdirSync, statfsSync, writeFileSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { runModule } from '../support/child.js'
import { makeFolder } from '../support/folder.js'
import { openRuntime, rejection, seeded } from '../support/producer.js'
import { guestHash, program, qemuImg, qemuInfo, qemuIo } from '../support/qemu.js'

const MIB = 2 ** 20
const ROUNDS = process.env.SLUICEBOX_LONG === '1' ? 100 : 12
const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? Date.now() % 1_000_000)

test('I37: killed at random moments of a safe rebase, the image opens, checks without corruption and reads the same', async () => {
  const folder = makeFolder()
  const overlay = folder('overlay.qcow2')
  const random = seeded(SEED)
  for (const [name, byte] of [
    ['a.raw', 1],
    ['b.raw', 2],
  ] as const)
    writeFileSync(folder(name), Buffer.alloc(96 * MIB, byte))
  const { images } = openRuntime()
  const ends = new Set<string>()
  for (let round = 0; round < ROUNDS; round++) {
    await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw', overlay)
    await qemuIo(overlay, ['write -P 3 1M 100K', 'write -z 7M 1M'])
    const guest = await guestHash(overlay)
    const late = random()
    const ended = await runModule(
      `
      const { kill, pid } = process
      const runtime = new Runtime()
      const late = Number(process.argv[2])
      runtime.rebase(process.argv[1], {
        backing: 'b.raw', backingFormat: 'raw',
        onProgress: ({ done, total }) => { if (total !== null && done >= total * late) kill(pid, 'SIGKILL') },
      }).then(() => kill(pid, 'SIGKILL'))
    `,
      { args: [overlay, String(late)] },
    )
    const say = `seed ${SEED}, round ${round}, killed at ${late}`
    expect(ended.signal, say).toBe('SIGKILL')
    expect(await images.check(overlay), say).toMatchObject({ corruptions: 0 })
    const check = await program('qemu-img', ['check', '--output=json', overlay])
    expect(JSON.parse(check.stdout).corruptions ?? 0, say).toBe(0)
    expect(await guestHash(overlay), say).toBe(guest)
    const backing = (await qemuInfo(overlay))['backing-filename'] as string
    expect(['a.raw', 'b.raw'], say).toContain(backing)
    ends.add(backing)
    expect(readdirSync(folder()).sort()).toEqual(['a.raw', 'b.raw', 'overlay.qcow2'])
  }
  expect(ends.has('a.raw'), `seed ${SEED}`).toBe(true)
})

/** What one operation does to disk.qcow2, and what must hold wherever it was killed. */
const killed: Record<
  string,
  { code: string; holds(folder: (name?: string) => string, before: string): Promise<void> }
> = {
  'I33: a commit': {
    code: 'runtime.images.commit(folder + "/disk.qcow2")',
    async holds(folder, before) {
      expect(await guestHash(folder('disk.qcow2'))).toBe(before)
      await soundToQemu(folder('base.qcow2'))
    },
  },
  'I34: a resize': {
    code: 'runtime.images.resize(folder + "/disk.qcow2", "48M", { shrink: true })',
    async holds(folder, before) {
      const size = (await qemuInfo(folder('disk.qcow2')))['virtual-size']
      expect([48 * MIB, 64 * MIB]).toContain(size)
      await qemuImg('resize', '-q', ...(size === 64 * MIB ? ['--shrink'] : []), folder('disk.qcow2'), '48M')
      await qemuImg('resize', '-q', '--shrink', folder('whole.qcow2'), '48M')
      expect(await guestHash(folder('disk.qcow2'))).toBe(await guestHash(folder('whole.qcow2')))
      expect(before).toHaveLength(64)
    },
  },
  'I56: a convert': {
    code: 'runtime.images.convert(folder + "/disk.qcow2", folder + "/target.vmdk", { format: "vmdk" })',
    async holds(folder, before) {
      expect(await guestHash(folder('disk.qcow2'))).toBe(before)
      if (existsSync(folder('target.vmdk'))) expect(await guestHash(folder('target.vmdk'))).toBe(before)
    },
  },
  'I37: a snapshot': {
    code: 'runtime.images.snapshots.create(folder + "/disk.qcow2", "one")',
    async holds(folder, before) {
      expect(await guestHash(folder('disk.qcow2'))).toBe(before)
      const taken = await openRuntime().images.snapshots.list(folder('disk.qcow2'))
      if (taken.length > 0) await qemuImg('snapshot', '-a', 'one', folder('disk.qcow2'))
      expect(await guestHash(folder('disk.qcow2'))).toBe(before)
    },
  },
}

async function soundToQemu(path: string): Promise<void> {
  const { stdout } = await program('qemu-img', ['check', '--output=json', path])
  expect(JSON.parse(stdout).corruptions ?? 0).toBe(0)
}

test.each(Object.entries(killed))(
  '%s that is killed at random moments leaves what was, or what was meant',
  async (_, operation) => {
    const random = seeded(SEED)
    /** Of the whole operation, as the first round found it. */
    let wholeMs = 0
    for (let round = 0; round < ROUNDS / 2; round++) {
      const folder = makeFolder()
      await qemuImg('create', '-q', '-f', 'qcow2', folder('base.qcow2'), '64M')
      await qemuIo(folder('base.qcow2'), ['write -P 1 0 20M'])
      const create = ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2']
      for (const name of ['disk.qcow2', 'whole.qcow2']) {
        await qemuImg(...create, folder(name))
        await qemuIo(folder(name), ['write -P 2 3M 9M', 'write -z 14M 3M', 'write -P 3 40M 20M'])
      }
      const before = await guestHash(folder('disk.qcow2'))
      const after = round === 0 ? Number.MAX_SAFE_INTEGER : random() * wholeMs
      const ended = await runModule(
        `
      const [folder, after] = process.argv.slice(1)
      const runtime = new Runtime()
      const begun = performance.now()
      const operation = ${operation.code}
      if (Number(after) < 1e9) setTimeout(() => process.kill(process.pid, 'SIGKILL'), Number(after))
      await operation
      console.log(performance.now() - begun)
      if (Number(after) < 1e9) process.kill(process.pid, 'SIGKILL')
    `,
        { args: [folder(), String(after)] },
      )
      if (round === 0) wholeMs = Number(ended.stdout)
      const say = `seed ${SEED}, round ${round}, killed after ${after} of ${wholeMs} ms: ${ended.stderr}`
      expect(ended.signal, say).toBe(round === 0 ? null : 'SIGKILL')
      const { images } = openRuntime()
      // One that says that it was not closed is counted anew by who writes next.
      const { 'dirty-flag': dirty } = await qemuInfo(folder('disk.qcow2'))
      const { corruptions } = await images.check(folder('disk.qcow2'), dirty ? { repair: 'all' } : {})
      expect(corruptions, say).toBe(0)
      await soundToQemu(folder('disk.qcow2'))
      await operation.holds(folder, before)
    }
    expect(wholeMs).toBeGreaterThan(0)
  },
)

/** A file system of its own of this many bytes, or why there is none. */
async function smallDisk(bytes: number): Promise<((name?: string) => string) | string> {
  if (process.getuid?.() !== 0) return 'not root: no tmpfs can be mounted'
  const folder = makeFolder()
  const { code, stderr } = await program('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', folder()])
  if (code !== 0) return `no tmpfs can be mounted: ${stderr.trim()}`
  onTestFinished(async () => {
    const answer = await program('umount', [folder()])
    if (answer.code !== 0) throw new Error(answer.stderr)
  })
  return folder
}

test('I38: a full disk makes create NO_SPACE and leaves no file', async ({ skip }) => {
  const disk = await smallDisk(MIB)
  if (typeof disk === 'string') return skip(disk)
  const { images } = openRuntime()
  for (const preallocation of ['full', 'falloc'] as const)
    for (const format of ['raw', 'qcow2'] as const) {
      const error = await rejection(images.create(disk('image'), { format, size: '4M', preallocation }))
      expect(error, `${format} ${preallocation}`).toMatchObject({
        code: 'NO_SPACE',
        errno: 'ENOSPC',
        path: disk('image'),
      })
      expect(existsSync(disk('image'))).toBe(false)
      expect(readdirSync(disk())).toEqual([])
    }
  expect(statfsSync(disk()).bfree).toBe(statfsSync(disk()).blocks)
  expect((await images.create(disk('image'), { format: 'qcow2', size: '4M' })).virtualBytes).toBe(4 * MIB)
})

test('I38: a disk that fills up in the midst of a rebase is NO_SPACE, and the overlay is sound and reads the same', async ({
  skip,
}) => {
  const disk = await smallDisk(4 * MIB)
  if (typeof disk === 'string') return skip(disk)
  const folder = makeFolder()
  for (const [name, byte] of [
    ['a.raw', 1],
    ['b.raw', 2],
  ] as const)
    writeFileSync(folder(name), Buffer.alloc(16 * MIB, byte))
  const runtime = openRuntime({ allowPaths: ['/'] })
  const overlay = disk('overlay.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', folder('a.raw'), '-F', 'raw', overlay)
  const guest = await guestHash(overlay)
  const error = await rejection(runtime.rebase(overlay, { backing: folder('b.raw'), backingFormat: 'raw' }))
  expect(error).toMatchObject({ code: 'NO_SPACE', errno: 'ENOSPC', op: 'rebase' })
  expect((await qemuInfo(overlay))['backing-filename']).toBe(folder('a.raw'))
  expect(await runtime.images.check(overlay)).toMatchObject({ corruptions: 0 })
  expect(await guestHash(overlay)).toBe(guest)
})
