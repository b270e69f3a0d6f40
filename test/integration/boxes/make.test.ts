// What a box is made of: its root, its limits, and what every execution in it starts from.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Box, BoxCreateOptions, Runtime } from '../../../lib/index.js'
import { runtimeOver, soon } from '../../support/boxes.js'
import { makeFolder } from '../../support/folder.js'
import { rejection } from '../../support/producer.js'
import { makeRootfs } from '../../support/rootfs.js'
import { cgroupsNamed, idsIn, traceOf } from '../../support/traces.js'

const isRoot = process.getuid?.() === 0

/** A box with this limit, or undefined where the host enforces none: then it was refused as S19 demands. */
async function limited(runtime: Runtime, options: BoxCreateOptions): Promise<Box | undefined> {
  try {
    return await runtime.create(options)
  } catch (error) {
    expect(error).toMatchObject({ code: 'UNSUPPORTED', op: 'create' })
    expect(idsIn(runtime.home)).toEqual([])
    return undefined
  }
}

const treeOf = (folder: string): string => {
  const hash = createHash('sha256')
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }).sort((a, b) =>
    join(a.parentPath, a.name) < join(b.parentPath, b.name) ? -1 : 1,
  )) {
    const path = join(entry.parentPath, entry.name)
    hash.update(`${path} ${statSync(path).mtimeMs} ${statSync(path).mode}\n`)
    if (entry.isFile()) hash.update(readFileSync(path))
  }
  return hash.digest('hex')
}

test('rootfs { directory } is what the box sees, and nothing written in the box reaches it', async () => {
  const folder = makeFolder()
  await makeRootfs(folder('root'), ['sh', 'cat', 'ls', 'rm', 'mkdir', 'id'])
  const before = treeOf(folder('root'))
  const runtime = runtimeOver('passed')
  for (const name of [undefined, 'web']) {
    const box = await runtime.create({ name, rootfs: { directory: folder('root') } })
    expect(await box.info()).toMatchObject({ rootfs: { directory: folder('root') } })
    expect((await box.shell('ls /bin')).stdout.split('\n').sort()).toEqual(['cat', 'id', 'ls', 'mkdir', 'rm', 'sh'])
    expect(
      (
        await box.shell(
          'echo written > /etc/written; echo changed > /etc/passwd; rm /bin/id; mkdir /new; cat /etc/written /etc/passwd',
        )
      ).stdout,
    ).toBe('written\nchanged')
    expect(await rejection(box.run(['id']))).toMatchObject({ code: 'EXEC_SPAWN', errno: 'ENOENT' })
    expect(treeOf(folder('root'))).toBe(before)
    if (name) {
      await box.restart()
      expect((await box.run(['cat', '/etc/written'])).stdout).toBe('written')
      expect(await rejection(box.run(['id']))).toMatchObject({ errno: 'ENOENT' })
    }
    await box.remove({ force: true })
    expect(treeOf(folder('root'))).toBe(before)
  }
})

test('B3: a start that fails is BOX_START and leaves the record alone, and start() may be tried again', async () => {
  const folder = makeFolder()
  const runtime = runtimeOver('passed')
  expect(await rejection(runtime.create({ rootfs: { directory: folder('root') } }))).toMatchObject({
    code: 'BOX_START',
    op: 'create',
  })
  expect(idsIn(runtime.home)).toEqual([])
  const box = await runtime.create({ name: 'web', start: false, rootfs: { directory: folder('root') } })
  box.on('error', () => {})
  for (let round = 0; round < 2; round++) {
    expect(await rejection(box.start())).toMatchObject({ code: 'BOX_START', op: 'box.start', boxId: box.id })
    expect(box.state).toBe('failed')
    expect(cgroupsNamed(box.id)).toEqual([])
    expect(
      readdirSync(`${runtime.home}/boxes/${box.id}`).filter((name) => !['record.json', 'lock', 'layer'].includes(name)),
    ).toEqual([])
  }
  await makeRootfs(folder('root'), ['sh'])
  await box.start()
  expect((await box.shell('echo here')).stdout).toBe('here')
})

test('env, cwd and user of the box are where each execution starts, over restarts and for another runtime', async () => {
  const runtime = runtimeOver('passed')
  const options = {
    name: 'web',
    env: { GREETING: 'hello', PATH: '/bin' },
    cwd: '/usr',
    ...(isRoot && { user: { uid: 1234, gid: 5678 } }),
  }
  const box = await runtime.create(options)
  const script = 'echo $GREETING $PATH; pwd; id -u; id -g'
  const expected = isRoot ? 'hello /bin\n/usr\n1234\n5678' : 'hello /bin\n/usr\n0\n0'
  expect((await box.shell(script)).stdout).toBe(expected)
  await box.restart()
  expect((await box.shell(script)).stdout).toBe(expected)
  await box.stop()
  await runtime.close()
  const next = runtimeOver('passed', { home: runtime.home })
  const again = await next.get('web')
  await again.start()
  expect((await again.shell(script)).stdout).toBe(expected)
  expect((await again.shell(script, { env: { GREETING: undefined }, cwd: '/', user: 'root' })).stdout).toBe(
    '/bin\n/\n0\n0',
  )
})

test('B5: reuse is for the same configuration only: else BOX_EXISTS names what differs', async () => {
  const runtime = runtimeOver('passed')
  const options = { name: 'web', env: { A: '1' }, labels: { tier: 'front' } }
  const box = await runtime.create(options)
  expect(await runtime.create({ ...options, ifExists: 'reuse' })).toBe(box)
  for (const [what, other] of [
    ['env', { env: { A: '2' } }],
    ['cwd', { cwd: '/usr' }],
    ['labels', { labels: {} }],
    ['vcpus', { vcpus: Number.POSITIVE_INFINITY }],
    ['memory', { memory: Number.POSITIVE_INFINITY }],
    ['maxProcesses', { maxProcesses: Number.POSITIVE_INFINITY }],
    ['rootfs', { rootfs: { directory: '/usr' } }],
    ['user', { user: 1 }],
    ['ephemeral', { ephemeral: true }],
  ] as const) {
    const error = await rejection(runtime.create({ ...options, ...other, ifExists: 'reuse' }))
    expect(error, what).toMatchObject({ code: 'BOX_EXISTS' })
    expect((error as Error).message).toContain(what)
  }
  expect(box.state).toBe('running')
})

test('S19: a limit asked for that the host cannot enforce is UNSUPPORTED; a missing default one is a warning', async () => {
  const runtime = runtimeOver('passed')
  const plain = await runtime.create({ name: 'plain' })
  const { warnings } = await plain.info()
  const words = { memory: /memory/, vcpus: /cpu/, maxProcesses: /process/, storage: /storage/ }
  for (const [key, value] of Object.entries({ memory: '64M', vcpus: 2, maxProcesses: 100, storage: '8M' })) {
    const made = await runtime.create({ name: key, [key]: value }).catch((error) => error)
    const warned = warnings.some((warning) => words[key as keyof typeof words].test(warning))
    // What is only warned of by default is refused when asked for, and what is enforced is not warned of.
    if (warned) expect(made, key).toMatchObject({ code: 'UNSUPPORTED' })
    else
      expect(
        (await made.info()).warnings.filter((warning: string) => words[key as keyof typeof words].test(warning)),
      ).toEqual([])
  }
})

test('S18: limits are in force, in full, before the first process runs', async ({ skip }) => {
  const runtime = runtimeOver('passed')
  const box = await limited(runtime, { memory: '48M', vcpus: 1, maxProcesses: 20 })
  if (!box) return skip('this host enforces no memory, cpu and process limits')
  const folders = cgroupsNamed(`sluicebox-${box.id}`)
  const read = (name: string) =>
    folders
      .map((folder) => {
        try {
          return readFileSync(`${folder}/${name}`, 'utf8').trim()
        } catch {
          return undefined
        }
      })
      .find((text) => text !== undefined)
  expect(read('memory.max') ?? read('memory.limit_in_bytes')).toBe(String(48 * 2 ** 20))
  expect(Number(read('pids.max'))).toBeGreaterThanOrEqual(20)
  expect(Number(read('pids.max'))).toBeLessThanOrEqual(22)
  const { first } = traceOf(box.id)
  for (const folder of folders)
    expect(readFileSync(`${folder}/cgroup.procs`, 'utf8').split('\n')).toContain(String(first.pid))
})

test('S18, X59: what takes all memory is killed, and box and host go on', async ({ skip }) => {
  const runtime = runtimeOver('passed')
  const box = await limited(runtime, { memory: '32M' })
  if (!box) return skip('this host enforces no memory limit')
  const other = await runtime.create()
  expect(await soon(box.run(['tail', '/dev/zero']), 'the OOM killer')).toMatchObject({ signal: 'SIGKILL' })
  expect((await box.run(['true'])).ok).toBe(true)
  expect((await other.run(['true'])).ok).toBe(true)
})

test('S18, X58: a fork bomb ends at its box’s walls, and the box can be stopped', async ({ skip }) => {
  const runtime = runtimeOver('passed')
  const box = await limited(runtime, { maxProcesses: 30 })
  if (!box) return skip('this host enforces no process limit')
  const other = await runtime.create()
  const bomb = await box.exec(['bash', '-c', 'echo begun; b() { b | b & }; b; b; wait'], { stderr: 'ignore' })
  await bomb.waitForLine('begun')
  const { first } = traceOf(box.id)
  for (let round = 0; round < 20; round++) {
    expect((await other.run(['true'])).ok).toBe(true)
    expect(
      cgroupsNamed(`sluicebox-${box.id}`).every(
        (folder) => readFileSync(`${folder}/cgroup.procs`, 'utf8').split('\n').length < 40,
      ),
    ).toBe(true)
  }
  expect(first.pid).toBeGreaterThan(0)
  await soon(box.remove({ force: true }), 'the bomb to be gone')
})

test('S21: writing past storage is ENOSPC in the box, and goes on after room was made', async () => {
  const box = await runtimeOver('passed').create({ storage: '8M', memory: Number.POSITIVE_INFINITY })
  const full = await box.shell('dd if=/dev/zero of=/file bs=1M count=64; wc -c < /file')
  expect(full.stderr).toMatch(/No space left/)
  expect(Number(full.stdout)).toBeLessThanOrEqual(8 * 2 ** 20)
  expect((await box.shell('rm /file; echo fits > /file && cat /file')).stdout).toBe('fits')
  // The other places that can be written are bounded as well, in bytes and in files.
  const places = (
    await box.shell('for d in /tmp /dev/shm /run /var/tmp; do touch $d/x 2>/dev/null && df -Pk $d | tail -1; done')
  ).stdout
  for (const line of places.split('\n').filter(Boolean))
    expect(Number(line.trim().split(/\s+/)[1]), line).toBeLessThan(2 ** 22)
})

test('S20: rlimits are the box’s own: no core, finite files, whatever the host has', async () => {
  const box = await runtimeOver('passed').create()
  const text = (await box.run(['cat', '/proc/self/limits'])).stdout
  const limit = (name: string) => new RegExp(`^${name}\\s+(\\S+)\\s+(\\S+)`, 'm').exec(text)?.slice(1)
  expect(limit('Max core file size')).toEqual(['0', '0'])
  for (const value of limit('Max open files') ?? ['unlimited']) expect(Number(value)).toBeLessThanOrEqual(2 ** 20)
})
