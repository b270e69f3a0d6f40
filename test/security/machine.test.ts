// A guest that owns its QEMU: what that process is to the kernel, seen from outside. What the walls around it refuse to
// a program that tries is inside.test.ts's; here it is shown that QEMU stands within the same ones.
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Box } from '../../lib/index.js'
import { runtimeOver } from '../support/boxes.js'
import { makeFolder } from '../support/folder.js'
import { qemuOf, sharedMachine } from '../support/machine.js'
import { machineRoot } from '../support/machine-root.js'
import { rejection } from '../support/producer.js'
import { mountsHere, traceOf } from '../support/traces.js'

const isRoot = process.getuid?.() === 0

/** What there is to see, or nothing: threads and descriptors go while one looks. */
function ifThere<T>(look: () => T): T[] {
  try {
    return [look()]
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return []
    throw error
  }
}
/** A field of /proc/PID/status. */
const fieldOf = (status: string, name: string): string => {
  const found = new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)
  if (!found) throw new Error(`it has no ${name}: ${status}`)
  return found[1] as string
}
const wordsOf = (pid: number, file: 'cmdline' | 'environ'): string[] =>
  readFileSync(`/proc/${pid}/${file}`, 'utf8').split('\0').filter(Boolean)
/** The status of each. */
const threadsOf = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    ifThere(() => readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')),
  )

interface Descriptor {
  readonly fd: string
  readonly target: string
  readonly writable: boolean
}
const descriptorsOf = (pid: number): Descriptor[] =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) =>
    ifThere(() => {
      const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1] as string
      return {
        fd,
        target: readlinkSync(`/proc/${pid}/fd/${fd}`),
        writable: (Number.parseInt(flags, 8) & 0o3) !== 0,
      }
    }),
  )
const isFile = ({ target }: Descriptor) => target.startsWith('/') && !/^\/(dev\/|memfd:)/.test(target)

/** Unix sockets that any process of ours or of the box's has by a name: in the file system, or abstract. */
const namedSocketsOf = (pid: number): string[] =>
  readFileSync(`/proc/${pid}/net/unix`, 'utf8')
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/)[7])
    .filter((path) => path !== undefined)

test('S40, S45: QEMU is an unprivileged user in namespaces of its own, without capabilities, under two filters', async () => {
  const box = await runtimeOver('machine').create()
  const { pid } = qemuOf(box)
  // Each of its threads, for these belong to threads.
  const threads = threadsOf(pid)
  expect(threads.length).toBeGreaterThan(0)
  for (const thread of threads) {
    const ids = [...fieldOf(thread, 'Uid').split('\t'), ...fieldOf(thread, 'Gid').split('\t')].map(Number)
    if (isRoot) for (const id of ids) expect(id).toBeGreaterThan(65_535)
    else expect(new Set(ids.slice(0, 4))).toEqual(new Set([process.getuid?.()]))
    for (const set of ['CapPrm', 'CapEff', 'CapInh', 'CapAmb']) {
      if (isRoot) expect(BigInt(`0x${fieldOf(thread, set)}`), set).toBe(0n)
    }
    // SYS_ADMIN (21), SYS_MODULE (16), SYS_PTRACE (19), NET_ADMIN (12), SYS_RAWIO (17), MKNOD (27), SYS_BOOT (22).
    const forbidden = [12, 16, 17, 19, 21, 22, 27].reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)
    for (const set of ['CapBnd', 'CapPrm', 'CapEff'])
      expect(BigInt(`0x${fieldOf(thread, set)}`) & forbidden, set).toBe(0n)
    expect(fieldOf(thread, 'NoNewPrivs')).toBe('1')
    expect(fieldOf(thread, 'Seccomp')).toBe('2')
    // That of the box, and QEMU's own above it.
    expect(Number(fieldOf(thread, 'Seccomp_filters'))).toBeGreaterThanOrEqual(2)
  }
  for (const kind of ['user', 'mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup'])
    expect(readlinkSync(`/proc/${pid}/ns/${kind}`), kind).not.toBe(readlinkSync(`/proc/self/ns/${kind}`))
  // No program but the agent beside it, which began it.
  const { first, processes } = traceOf(box.id)
  expect(processes.map((each) => each.pid).sort()).toEqual([traceOf(box.id).keeper.pid, first.pid, pid].sort())
})

test('S40, S45: QEMU has no network, and sees no place of the host’s users', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  const { pid } = qemuOf(box)
  const links = readFileSync(`/proc/${pid}/net/dev`, 'utf8').split('\n').slice(2).filter(Boolean)
  expect(links.map((line) => line.split(':')[0]?.trim())).toEqual(['lo'])
  expect(readFileSync(`/proc/${pid}/net/route`, 'utf8').trim().split('\n').length).toBe(1)
  expect(namedSocketsOf(pid)).toEqual([])
  const points = readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split(' ')[4] as string)
  const homes = [runtime.home, process.env.HOME ?? '/root', '/home', '/tmp', '/run', '/root', '/mnt', '/srv', '/boot']
  for (const point of points)
    for (const home of homes) expect(point === home || point.startsWith(`${home}/`), `${point} of ${home}`).toBe(false)
  // Asked through its own root. Where the box's root is another user's, that is for root only.
  if (!isRoot) return
  for (const home of ['/tmp', '/home', '/root', '/run', '/mnt'])
    expect(readdirSync(`/proc/${pid}/root${home}`), home).toEqual([])
  for (const path of [runtime.home, machineRoot(), import.meta.filename, '/etc/shadow', '/boot', '/srv'])
    expect(() => statSync(`/proc/${pid}/root${path}`), path).toThrow(/ENOENT/)
})

test('S40: its open files are its own disks, of which only the overlay may be written, and nothing else of the host', async () => {
  const folder = makeFolder()
  for (const name of ['read.raw', 'direct.raw']) {
    writeFileSync(folder(name), '')
    truncateSync(folder(name), 2 ** 20)
  }
  const runtime = runtimeOver('machine')
  const box = await runtime.create({
    disks: [
      { path: folder('read.raw'), format: 'raw', mode: 'readonly' },
      { path: folder('direct.raw'), format: 'raw', mode: 'direct' },
    ],
  })
  const { pid } = qemuOf(box)
  const open = descriptorsOf(pid)
  const { diskPath } = await box.info()
  const written = (which: boolean) => [
    ...new Set(open.filter((each) => isFile(each) && each.writable === which).map(({ target }) => target)),
  ]
  expect(written(true).sort()).toEqual([diskPath, folder('direct.raw')].sort())
  expect(written(false).sort()).toEqual([machineRoot(), folder('read.raw')].sort())
  const others = open.filter((each) => !isFile(each)).map(({ target }) => target.replace(/\d+/, 'N'))
  const known = [
    '/dev/null',
    '/dev/urandom',
    '/memfd:sluicebox-kernel (deleted)',
    '/memfd:sluicebox-initrd (deleted)',
    'anon_inode:[eventfd]',
    'anon_inode:[eventpoll]',
    'anon_inode:[signalfd]',
    'socket:[N]',
    'pipe:[N]',
  ]
  expect(others.filter((target) => !known.includes(target))).toEqual([])
  // The port of the agent, the console, QMP, and one for what it says itself: to us, and to nobody else.
  expect(new Set(open.filter(({ target }) => target.startsWith('socket:')).map(({ target }) => target)).size).toBe(4)
  // Kernel and initrd are everybody's: sealed, so that no machine writes into another's.
  for (const { fd } of open.filter(({ target }) => target.startsWith('/memfd:'))) {
    let copy: number
    try {
      copy = openSync(`/proc/${pid}/fd/${fd}`, 'r+')
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toMatch(/EACCES|EPERM/)
      continue
    }
    expect(() => writeSync(copy, 'x')).toThrow(/EPERM/)
    closeSync(copy)
  }
})

test('S42: QEMU’s environment is empty, and neither its command line nor its home knows the host’s or a guest’s secrets', async () => {
  const secrets = ['host-secret-4e21', 'box-secret-77aa', 'execution-secret-0c9d']
  const [hosts, boxes, executions] = secrets
  process.env.SLUICEBOX_TEST_SECRET = hosts
  try {
    const runtime = runtimeOver('machine')
    const box = await runtime.create({ name: 'named-by-a-caller', env: { OF_THE_BOX: boxes as string } })
    const sleep = await box.exec(['sh', '-c', 'echo "$TOKEN $OF_THE_BOX"; exec sleep 1000'], {
      env: { TOKEN: executions as string },
    })
    expect(await sleep.waitForLine(/./)).toBe(`${executions} ${boxes}`)
    const { pid } = qemuOf(box)
    expect(wordsOf(pid, 'environ')).toEqual([])
    const { keeper, first } = traceOf(box.id)
    for (const each of [keeper.pid, first.pid, pid]) {
      const line = wordsOf(each, 'cmdline').join('\n')
      for (const word of [...secrets, 'named-by-a-caller', machineRoot(), runtime.home, process.env.HOME ?? '/root'])
        expect(line.includes(word), word).toBe(false)
    }
    for (const entry of readdirSync(runtime.home, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      expect(statSync(path).mode & 0o077, path).toBe(0)
      // What the caller gave a named box is in its record, which only the owner may read. What one execution had is nowhere.
      if (!path.endsWith('.qcow2'))
        for (const secret of [hosts, executions]) expect(readFileSync(path, 'latin1')).not.toContain(secret)
    }
  } finally {
    delete process.env.SLUICEBOX_TEST_SECRET
  }
})

test('S45, S8: what root of a guest may do to its kernel, the host does not notice', async () => {
  const box = await sharedMachine()
  const host = () => ({
    core: readFileSync('/proc/sys/kernel/core_pattern', 'utf8'),
    name: readFileSync('/proc/sys/kernel/hostname', 'utf8'),
    mounts: mountsHere(),
  })
  const before = { ...host(), time: Date.now() - performance.now() }
  // Each works there: it is a kernel of its own.
  const script = `
    echo '|/tmp/taken' > /proc/sys/kernel/core_pattern && echo core
    echo taken > /proc/sys/kernel/hostname && echo name
    mkdir -p /mnt/x && mount -t tmpfs none /mnt/x && echo mount
    date -s @86400 > /dev/null && echo time
    head -c 512 /dev/vda > /dev/null && echo disk
    cat /proc/1/maps > /dev/null && echo first`
  const { stdout, stderr } = await box.shell(script)
  expect([stdout.split('\n').filter((word) => word !== 'first'), stderr]).toEqual([
    ['core', 'name', 'mount', 'time', 'disk'],
    expect.anything(),
  ])
  const { time, ...rest } = before
  expect(host()).toEqual(rest)
  expect(Math.abs(Date.now() - performance.now() - time)).toBeLessThan(60_000)
})

/** Each would be something else to QEMU, were it part of an option. */
const names = [
  'a,b=c,readonly=off.raw',
  '-blockdev driver=null-co.raw',
  ' spaces and\nnewlines .raw',
  'json:{"driver":"null-co"}',
  'fd:3',
  'nbd:unix:x',
]

test('S41: a disk of any name is what it is: none alters QEMU’s options', async () => {
  const folder = makeFolder()
  const commandOf = async (make: () => Promise<Box>) => {
    await using box = await make()
    return wordsOf(qemuOf(box).pid, 'cmdline')
  }
  mkdirSync(folder('-M q35,x='))
  const awkward = (name: string) => join(folder('-M q35,x='), name)
  copyFileSync(machineRoot(), awkward('a,b=c,\n -M.raw'))
  for (const [n, name] of names.entries()) {
    writeFileSync(awkward(name), `disk ${n}\n`)
    truncateSync(awkward(name), 2 ** 20)
  }
  const runtime = runtimeOver('machine')
  const box = await runtime.create({
    name: 'q35,x=y -M none',
    rootfs: { disk: awkward('a,b=c,\n -M.raw'), format: 'raw' },
    disks: names.map((name) => ({ path: awkward(name), format: 'raw' })),
  })
  const letters = names.map((_, n) => String.fromCharCode('b'.charCodeAt(0) + n))
  const { stdout } = await box.shell(`for each in ${letters.join(' ')}; do head -c 6 /dev/vd$each; echo; done`)
  expect(stdout.split('\n').filter(Boolean)).toEqual(names.map((_, n) => `disk ${n}`))
  const line = wordsOf(qemuOf(box).pid, 'cmdline')
  // All that is a caller's in it is numbers.
  expect(line.filter((word) => word.includes('raw,') || word.includes(folder()) || word.includes('null-co'))).toEqual(
    [],
  )
  expect(line.filter((word) => word.includes('/')).map((word) => word.replace(/\/(fd|fdset)\/\d+/g, '/$1/N'))).toEqual(
    expect.arrayContaining(['/usr/bin/qemu-system-x86_64', '/proc/self/fd/N']),
  )
  await box.remove({ force: true })
  // The same number of disks with plain names: the same command line, word for word.
  for (const [n] of names.entries()) copyFileSync(awkward(names[n] as string), folder(`plain${n}.raw`))
  const plain = await commandOf(() =>
    runtime.create({ disks: names.map((_, n) => ({ path: folder(`plain${n}.raw`), format: 'raw' })) }),
  )
  expect(line).toEqual(plain)
})

test('S41, S27: a path with a NUL is refused, and a name that is a protocol’s is a file’s', async () => {
  const runtime = runtimeOver('machine')
  expect(await rejection(runtime.create({ rootfs: { disk: '/a\0b' } }))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  for (const disk of ['json:{"driver":"null-co"}', 'nbd:unix:/x', 'fd:3', '/dev/fdset/3'])
    expect((await rejection(runtime.create({ rootfs: { disk, format: 'raw' } }))) as Error, disk).toMatchObject({
      code: expect.stringMatching(/^(IMAGE_NOT_FOUND|INVALID_ARGUMENT)$/),
    })
  expect(await runtime.list()).toEqual([])
})
