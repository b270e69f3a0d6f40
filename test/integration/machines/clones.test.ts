// box.snapshot(), box.clone() and box.snapshots: one instant of a machine, and what is made from it.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { expect, test } from 'vitest'
import type { Box } from '../../../lib/index.js'
import { eventually, hear, runtimeOver, soon, textOf } from '../../support/boxes.js'
import { makeFolder } from '../../support/folder.js'
import { asMachine, BOOT, ORDERLY, qemuOf } from '../../support/machine.js'
import { openRuntime, rejection } from '../../support/producer.js'
import { qemuImg } from '../../support/qemu.js'
import { gone, idsIn, type Trace, traceOf } from '../../support/traces.js'

/** A page in a thousand may be wrong: SLUICEBOX_LONG=1 looks long enough to meet it. */
const ROUNDS = process.env.SLUICEBOX_LONG === '1' ? 150 : 3

const text = async (box: Box, script: string) => (await box.shell(script, { check: true })).stdout.trim()

/** What another machine must not have, in lines: host name, machine id, random bytes. */
const identity = (box: Box) =>
  text(box, 'hostname; cat /etc/machine-id /etc/hostname; head -c 16 /dev/urandom | od -An -tx1')

/** What its memory is made of, in KiB: [all that is its own and its share of the rest, what it shares]. */
function memoryOf(box: Box): { pss: number; shared: number } {
  let [pss, shared, inside] = [0, 0, false]
  for (const line of readFileSync(`/proc/${qemuOf(box).pid}/smaps`, 'utf8').split('\n')) {
    if (/^[0-9a-f]+-/.test(line)) inside = line.includes('memfd:sluicebox-memory')
    const [, key, kib] = /^(Pss|Shared_Clean|Shared_Dirty): +(\d+)/.exec(line) ?? []
    if (inside && key === 'Pss') pss += Number(kib)
    else if (inside && key) shared += Number(kib)
  }
  return { pss, shared }
}

test('B19, B44: clones of one memory differ in id, names and random bytes before anything runs in them, and have the time', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  await box.shell('head -c 16 /dev/urandom > /dev/null')
  // A clone that keeps its source's time is decades late.
  await box.shell('date -s @86400', { check: true })
  const snapshot = await box.snapshot('warm', { memory: true, labels: { purpose: 'test' } })
  expect(snapshot).toMatchObject({ name: 'warm', memory: true, labels: { purpose: 'test' } })
  expect(snapshot.pausedMs).toBeGreaterThan(0)
  expect(snapshot.bytes).toBeGreaterThan(2 ** 20)
  expect(await box.snapshots.list()).toEqual([snapshot])
  const clones = await Promise.all([1, 2, 3].map(() => box.clone({ from: 'warm' })))
  const seen = await Promise.all([box, ...clones].map(identity))
  expect(new Set(seen).size).toBe(4)
  for (let line = 0; line < 4; line++) expect(new Set(seen.map((each) => each.split('\n')[line])).size).toBe(4)
  for (const clone of clones) {
    expect(clone.id).not.toBe(box.id)
    expect(await text(clone, 'hostname')).toBe(clone.id.slice(0, 12))
    const before = Date.now()
    const there = Number(await text(clone, 'date +%s'))
    expect(there).toBeGreaterThanOrEqual(before / 1000 - 60)
    expect(there).toBeLessThanOrEqual(Date.now() / 1000 + 60)
  }
})

test('B18: disk and memory are of one instant: what runs in the memory goes on over its own bytes on the disk', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  // A daemon that nobody started by an execution that lives: it goes on in a clone.
  await box.shell(`
    cat > /root/writer <<'END'
i=0
while [ ! -e /dev/shm/stop ]; do i=$((i+1)); echo $i >> /root/log; sync; echo $i > /dev/shm/last; done
touch /dev/shm/stopped
END
    setsid sh /root/writer < /dev/null > /dev/null 2>&1 &
    while [ ! -s /dev/shm/last ]; do sleep 0.05; done`)
  const clone = await box.clone({ memory: true })
  const sequence = 'n=$(wc -l < /root/log); seq 1 $n | md5sum | cut -c1-32; md5sum < /root/log | cut -c1-32; echo $n'
  for (const each of [box, clone]) {
    const before = Number(await text(each, 'cat /dev/shm/last'))
    await text(each, 'touch /dev/shm/stop; while [ ! -e /dev/shm/stopped ]; do sleep 0.05; done')
    // From the disk, not from the memory that came along.
    const [want, have, lines] = (await text(each, `sync; echo 3 > /proc/sys/vm/drop_caches; ${sequence}`)).split('\n')
    expect(have).toBe(want)
    expect(Number(lines)).toBeGreaterThanOrEqual(before)
  }
})

test('B18: a box goes on when its snapshot is aborted, and the next one succeeds', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  await box.shell('echo kept > /root/file')
  const ticking = await box.exec(['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'])
  const lines = ticking.lines()[Symbol.asyncIterator]()
  await lines.next()
  // QEMU ends what is cancelled in different ways, by where it is.
  for (const delay of [0, 1, 5, ...Array.from({ length: 20 }, (_, n) => 10 + n * 15)]) {
    const abort = new AbortController()
    const taken = box.snapshot(`aborted-${delay}`, { memory: true, signal: abort.signal })
    setTimeout(() => abort.abort(new Error('enough')), delay)
    await soon(taken.catch(ignore), 'the snapshot')
    expect((await soon(lines.next(), 'a line')).done).toBe(false)
  }
  const late = await box.snapshot('whole', { memory: true })
  const names = (await box.snapshots.list()).map(({ name }) => name)
  expect(names.at(-1)).toBe('whole')
  const clone = await box.clone({ from: late.id })
  expect(await text(clone, 'cat /root/file')).toBe('kept')
  expect(box.state).toBe('running')
})

test('B23: an execution of the source ends in the clone, and its output stays whole in the source', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  const counting = await box.exec(['sh', '-c', 'exec 9>/dev/shm/held; seq 1 300000; sleep 1; echo end'])
  const heard = hear(counting)
  const clone = await box.clone({ memory: true })
  expect(await clone.executions()).toEqual([])
  expect(await text(clone, 'ps | grep -c "[s]eq 1 300000" || true')).toBe('0')
  const expected = `${Array.from({ length: 300_000 }, (_, i) => i + 1).join('\n')}\nend\n`
  expect(await soon(counting.wait(), 'the end')).toMatchObject({ exitCode: 0 })
  expect(textOf(heard.stdout) === expected).toBe(true)
})

test('B18: every clone of a guest that writes without a rest lives: its kernel finds no page of another moment', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  await box.exec(['sh', '-c', 'while :; do seq 1 300000 | sort -r > /dev/shm/rows; done'], { stdout: 'ignore' })
  for (let round = 0; round < ROUNDS; round++) {
    const clone = await box.clone({ memory: true })
    expect(await text(clone, 'for i in 1 2 3; do seq 1 20000 | md5sum; done | uniq | wc -l')).toBe('1')
    await clone.remove({ force: true })
  }
})

test('B21: clones share what they do not write, and no write shows in the source or in another clone', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  await box.shell('head -c 60000000 /dev/urandom > /dev/shm/warm; echo source > /root/who; sync')
  const sum = await text(box, 'md5sum < /dev/shm/warm')
  const settled = await box.clone({ memory: true, count: 4 })
  const clones = settled.map((each) => (each as PromiseFulfilledResult<Box>).value)
  await Promise.all(
    clones.map((clone, index) => text(clone, `echo ${index} > /root/who; echo ${index} | tee /dev/shm/own; sync`)),
  )
  expect(await text(box, 'cat /root/who; ls /dev/shm')).toBe('source\nwarm')
  for (const [index, clone] of clones.entries()) {
    expect(await text(clone, 'cat /root/who /dev/shm/own')).toBe(`${index}\n${index}`)
    expect(await text(clone, 'md5sum < /dev/shm/warm')).toBe(sum)
  }
  for (const clone of clones) {
    const { pss, shared } = memoryOf(clone)
    // The 57 MiB that were warm are mapped by all of them and private to none.
    expect(shared).toBeGreaterThan(50 * 1024)
    expect(pss).toBeLessThan(shared)
  }
})

test('B22: what a clone lies on outlives the snapshot, the source and the other clones', async () => {
  const folder = makeFolder()
  const runtime = openRuntime({ home: folder('home') })
  const box = await runtime.create(asMachine({ name: 'source' }))
  await box.shell('echo of the source > /root/file; sync')
  await box.snapshot('s', { memory: true })
  const clone = await box.clone({ from: 's', name: 'clone' })
  const other = await box.clone({ from: 's' })
  await box.snapshots.remove('s')
  expect(await rejection(box.clone({ from: 's' }))).toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
  await box.remove({ force: true })
  await other.remove().catch(() => other.remove({ force: true }))
  await clone.shell('echo of the clone >> /root/file')
  const again = await clone.clone({ memory: true, name: 'again' })
  await clone.restart(ORDERLY)
  expect(await text(clone, 'cat /root/file')).toBe('of the source\nof the clone')
  await again.restart(ORDERLY)
  expect(await text(again, 'cat /root/file')).toBe('of the source\nof the clone')
  const { diskPath } = await again.info()
  await again.stop(ORDERLY)
  expect(await qemuImg('check', '-q', diskPath as string)).toBe('')
})

test('snapshots of disks alone, of a box that runs and of one that stands, are listed, cloned, restored and removed', async () => {
  const folder = makeFolder()
  const runtime = openRuntime({ home: folder('home') })
  const box = await runtime.create(asMachine({ name: 'web' }))
  const files = () => readdirSync(dirname(diskPath as string)).filter((name) => name.endsWith('.qcow2')).length
  await box.shell('echo one > /root/file')
  const first = await box.snapshot('one')
  expect(first.memory).toBe(false)
  await box.shell('echo two > /root/file')
  expect(await rejection(box.snapshot('one'))).toMatchObject({ code: 'SNAPSHOT_EXISTS' })
  await box.stop(ORDERLY)
  const second = await box.snapshot('two')
  expect(second).toMatchObject({ parent: first.id, pausedMs: 0 })
  expect(await rejection(box.snapshot('three', { memory: true }))).toMatchObject({ code: 'BOX_STATE' })
  const { diskPath } = await box.info()
  expect(files()).toBe(3)
  const clone = await box.clone({ from: 'one' })
  expect(await text(clone, 'cat /root/file')).toBe('one')
  expect(await rejection(box.clone({ from: 'one', memory: true }))).toMatchObject({ code: 'UNSUPPORTED' })
  await box.snapshots.restore('one')
  expect(box.state).toBe('stopped')
  await box.start(BOOT)
  expect(await text(box, 'cat /root/file')).toBe('one')
  expect(files()).toBe(3)
  await box.snapshots.remove('two')
  expect(files()).toBe(2)
  await box.snapshots.remove(first.id)
  expect(await box.snapshots.list()).toEqual([])
  expect(await rejection(box.snapshots.remove('one'))).toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
  expect(await rejection(box.snapshots.restore('one'))).toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
  await box.restart(ORDERLY)
  expect(await text(box, 'cat /root/file')).toBe('one')
})

test('a box is restored to a memory: what ran then runs again, and what was done since is not there', async () => {
  const runtime = openRuntime({ home: makeFolder()('home') })
  const box = await runtime.create(asMachine({ name: 'web' }))
  await box.shell('echo then > /dev/shm/state; echo then > /root/state')
  const name = await text(box, 'hostname')
  await box.snapshot('then', { memory: true })
  await box.shell('echo since > /dev/shm/state; echo since > /root/state; sync')
  const lost = await box.exec(['sleep', '1000'])
  const ended = lost.wait().catch((error) => error)
  await box.snapshots.restore('then')
  expect(await ended).toMatchObject({ code: 'EXEC_LOST' })
  expect(await text(box, 'cat /dev/shm/state /root/state; hostname')).toBe(`then\nthen\n${name}`)
  await box.restart(ORDERLY)
  expect(await text(box, 'cat /root/state')).toBe('then')
})

test('B36: disks that have layers of snapshots still move to another base while the machine runs', async () => {
  const folder = makeFolder()
  const runtime = openRuntime({ home: folder('home') })
  const options = asMachine({ name: 'web' })
  const base = (options.rootfs as { disk: string }).disk
  await runtime.images.create(folder('other.qcow2'), {
    format: 'qcow2',
    backing: { path: base, format: 'raw' },
  })
  const box = await runtime.create(options)
  await runtime.rebase(box, { backing: folder('other.qcow2'), backingFormat: 'qcow2' })
  await runtime.rebase(box, { backing: base, backingFormat: 'raw' })
  await box.shell('echo one > /root/file')
  await box.snapshot('one', { memory: true })
  await box.shell('echo two >> /root/file')
  await runtime.rebase(box, { backing: folder('other.qcow2'), backingFormat: 'qcow2' })
  await box.shell('echo three >> /root/file')
  await box.snapshot('two', { memory: true })
  await runtime.rebase(box, { backing: base, backingFormat: 'raw' })
  const clone = await box.clone({ from: 'two' })
  expect(await text(clone, 'cat /root/file')).toBe('one\ntwo\nthree')
  await box.restart(ORDERLY)
  expect(await text(box, 'cat /root/file')).toBe('one\ntwo\nthree')
  const older = await box.clone({ from: 'one' })
  expect(await text(older, 'cat /root/file')).toBe('one')
})

test('snapshots of one box that are asked for at once are taken, copied and removed one after the other', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create()
  await box.shell('echo here > /root/file')
  await box.snapshot('first')
  const [, removed, ...clones] = await Promise.all([
    box.snapshot('second', { memory: true }),
    box.snapshots.remove('first'),
    box.clone({ memory: true }),
    box.clone({ memory: true }),
  ])
  expect(removed).toBe(undefined)
  for (const clone of clones) expect(await text(clone, 'cat /root/file')).toBe('here')
  expect((await box.snapshots.list()).map(({ name }) => name)).toEqual(['second'])
})

test('the layers of a disk have an end, and a rebase onto the base that it has merges them', async () => {
  const runtime = openRuntime({ home: makeFolder()('home') })
  const options = asMachine({ name: 'web', start: false })
  const box = await runtime.create(options)
  let error: unknown
  for (let layers = 1; !error && layers < 100; layers++) {
    error = await box.snapshot(`s${layers}`).then(
      () => undefined,
      (refused) => refused,
    )
  }
  expect(error).toMatchObject({ code: 'UNSUPPORTED', hint: expect.stringContaining('runtime.rebase') })
  expect((await box.snapshots.list()).length).toBe(63)
  await box.start(BOOT)
  await box.shell('echo deep > /root/file')
  await runtime.rebase(box, { backing: (options.rootfs as { disk: string }).disk, backingFormat: 'raw' })
  await box.snapshot('more', { memory: true })
  await box.restart(ORDERLY)
  expect(await text(box, 'cat /root/file')).toBe('deep')
})

test('B45: of many clones one that fails leaves the others, and nothing of itself', async () => {
  const home = makeFolder()('home')
  const runtime = openRuntime({ home })
  const box = await runtime.create(asMachine())
  await box.snapshot('s', { memory: true })
  const before = new Set(idsIn(home))
  let ends: PromiseSettledResult<Box>[] = []
  let victim: Trace | undefined
  // The blow may fall once its machine is up, which is none of this test's: then once more.
  for (let round = 0; round < 5 && ends.every(({ status }) => status === 'fulfilled'); round++) {
    for (const end of ends) if (end.status === 'fulfilled') await end.value.remove({ force: true }).catch(ignore)
    await eventually(
      () => idsIn(home),
      (ids) => ids.every((id) => before.has(id)),
      'the clones to be gone',
    )
    victim = undefined
    const making = box.clone({ from: 's', count: 3 })
    let over = false
    void making.then(() => {
      over = true
    })
    // The first of them that has a QEMU loses it.
    while (!victim && !over) {
      await new Promise((resolve) => setImmediate(resolve))
      for (const id of idsIn(home).filter((each) => !before.has(each))) {
        try {
          const [{ pid }, trace] = [qemuOf({ id }), traceOf(id)]
          process.kill(pid, 'SIGKILL')
          victim = trace
          break
        } catch {
          // It has none yet.
        }
      }
    }
    ends = await making
  }
  if (!victim) throw new Error('no clone was struck')
  expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'fulfilled', 'rejected'])
  for (const end of ends) {
    if (end.status === 'fulfilled') expect(await text(end.value, 'echo here')).toBe('here')
    else expect(end.reason).toMatchObject({ code: 'BOX_START' })
  }
  await gone(victim, home)
  expect(idsIn(home).length).toBe(before.size + 2)
})

test('what has no machine, no disk of its own or stands still is refused, with what to do', async () => {
  const folder = makeFolder()
  const runtime = openRuntime({ home: folder('home') })
  const box = await runtime.create()
  expect(await rejection(box.snapshot())).toMatchObject({ code: 'UNSUPPORTED' })
  expect(await rejection(box.clone())).toMatchObject({ code: 'UNSUPPORTED' })
  expect(await rejection(box.snapshots.restore('x'))).toMatchObject({ code: 'UNSUPPORTED' })
  for (const bad of [{ count: 0 }, { count: 2, name: 'x' }, { memory: 'yes' }, { more: 1 }])
    expect(await rejection(box.clone(bad as never))).toMatchObject({ code: 'INVALID_ARGUMENT' })
  mkdirSync(folder('home/x'), { recursive: true })
  writeFileSync(folder('data.raw'), Buffer.alloc(1 << 20))
  const disks = [{ path: folder('data.raw'), format: 'raw' as const, mode: 'direct' as const }]
  const machine = await runtime.create(asMachine({ disks }))
  expect(await rejection(machine.snapshot())).toMatchObject({ code: 'UNSUPPORTED', path: folder('data.raw') })
  const paused = await runtime.create(asMachine())
  await paused.pause()
  expect(await rejection(paused.snapshot('x', { memory: true }))).toMatchObject({ code: 'BOX_STATE' })
})

const ignore = () => {}

test('create({ rootfs: { snapshot } }): a box that goes on from a snapshot, by its id or as BOX/SNAPSHOT, and a pool of them', async () => {
  const runtime = runtimeOver('machine')
  const box = await runtime.create({ name: 'warm' })
  const daemon = `setsid sh -c 'echo $$ > /dev/shm/pid; exec sleep 10000' > /dev/null 2>&1 &`
  const ready = 'while [ ! -s /dev/shm/pid ]; do sleep 0.05; done'
  await box.shell(`echo warm > /root/state; sync; ${daemon} ${ready}`, { check: true })
  const { id } = await box.snapshot('ready', { memory: true })
  const rootfs = { snapshot: id }
  const one = await runtime.create({ rootfs, labels: { made: 'from it' }, env: { GREETING: 'hello' } })
  expect(await one.info()).toMatchObject({ rootfs, labels: { made: 'from it' } })
  expect(await text(one, 'cat /root/state; kill -0 $(cat /dev/shm/pid) && echo runs; echo $GREETING')).toBe(
    'warm\nruns\nhello',
  )
  const pool = await runtime.pool({ rootfs: { snapshot: 'warm/ready' }, size: 1 })
  const two = await pool.acquire()
  expect(await text(two, 'cat /root/state')).toBe('warm')
  await pool.close()
  const disks = await runtime.create({ rootfs: { ...rootfs, memory: false }, name: 'cold', ifExists: 'reuse' })
  expect(await text(disks, 'cat /root/state; ls /dev/shm')).toBe('warm')
  expect(await runtime.create({ rootfs: { ...rootfs, memory: false }, name: 'cold', ifExists: 'reuse' })).toBe(disks)
  const refused = (options: object) => rejection(runtime.create({ rootfs, ...options } as never))
  expect(await refused({ name: 'cold', ifExists: 'reuse' })).toMatchObject({ code: 'BOX_EXISTS' })
  for (const options of [{ memory: '512M' }, { vcpus: 2 }, { disks: [] }, { storage: '2G' }, { maxProcesses: 10 }])
    expect(await refused(options)).toMatchObject({ code: 'INVALID_ARGUMENT', argument: Object.keys(options)[0] })
  // With the box its snapshot would be gone.
  expect(await refused({ name: 'warm', ifExists: 'replace' })).toMatchObject({ argument: 'ifExists' })
  expect(await refused({ isolation: 'namespace' })).toMatchObject({
    code: 'INVALID_ARGUMENT',
    argument: 'rootfs.snapshot',
  })
  for (const snapshot of ['ready', 'warm/none', '0'.repeat(24)])
    expect(await refused({ rootfs: { snapshot } })).toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
  expect(await refused({ rootfs: { snapshot: 'none/ready' } })).toMatchObject({ code: 'BOX_NOT_FOUND' })
  // What it was made from need not be there any more.
  await runtime.remove('warm', { force: true })
  expect(await text(one, 'cat /root/state')).toBe('warm')
})
