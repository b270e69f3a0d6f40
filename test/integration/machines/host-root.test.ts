// Machines whose root is this host's programs: an image that is made once for each state of them, and shows what a box of namespaces
// shows.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeFolder, removeFolder } from '../../support/folder.js'
import { BOOT, needMachines } from '../../support/machine.js'
import { makeSmallUsr, onSmallHost } from '../../support/small-host.js'

const isRoot = process.getuid?.() === 0
let [folder, usr] = ['', '']
// Not while this file is read: of one whose tests are all left out, nobody would remove it.
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluicebox-test-'))
  usr = join(folder, 'usr')
  if (isRoot) await makeSmallUsr(usr)
})
afterAll(() => removeFolder(folder))

const needMounts = (skip: (why: string) => void) => {
  needMachines()
  if (!isRoot) skip('a user who is not root cannot put a small /usr in the place of the host’s')
}
const keysIn = (home: string) => readdirSync(join(home, 'hosts')).filter((name) => /^[0-9a-f]{32}/.test(name))
const KEY = 'f'.repeat(32)
const creating = (home: string, options: object, templates: string | false = false) => `
const runtime = new Runtime({ home: ${JSON.stringify(home)}, isolation: 'vm', templates: ${JSON.stringify(templates)} })
const create = (more) => runtime.create({ ...${JSON.stringify({ ...BOOT, ...options })}, ...more })
`

test('S12: a machine’s root is this host’s programs and nothing else of it, made once, and what it writes is its own', async ({
  skip,
}) => {
  needMounts(skip)
  const home = makeFolder()('home')
  // What a killed maker left.
  mkdirSync(join(home, 'hosts', `${KEY}.new`), { recursive: true, mode: 0o700 })
  writeFileSync(join(home, 'hosts', `${KEY}.new`, 'root.erofs'), 'half')
  const said = await onSmallHost<Record<string, string> & { phases: string[]; rootfs: unknown; second: string }>(
    usr,
    `${creating(home, {})}
    const phases = new Set()
    const box = await create({ onProgress: ({ phase }) => phases.add(phase) })
    const told = { phases: [...phases], rootfs: (await box.info()).rootfs }
    const ask = async (name, command) => { told[name] = (await box.shell(command)).stdout.trim() }
    await ask('kernel', 'cat /proc/mounts')
    await ask('open', 'cat /usr/share/open')
    await ask('links', 'test -x /bin/sh && cat /etc/hostname')
    await ask('closed', 'ls /usr/share/closed 2>&1; cat /etc/shadow /etc/gshadow /etc/sudoers 2>&1 | grep -v "No such"')
    await ask('etc', 'cat /etc/passwd')
    await ask('places', 'ls -A /home /root /mnt; ls -A / ')
    await ask('owners', 'find /usr ! -user 0')
    await ask('wrote', 'echo mine > /usr/share/open && cat /usr/share/open')
    const other = await create({ storage: '16M' })
    told.second = (await other.shell('cat /usr/share/open; cat /dev/zero > /usr/big; stat -c %s /usr/big')).stdout
    await box.remove({ force: true })
    await other.remove({ force: true })
    await runtime.close()
    say(told)`,
  )
  expect(said.phases).toContain('prepare')
  expect(said.rootfs).toBe('host')
  expect(said.kernel).toMatch(/^overlay \/ overlay/m)
  expect(said.open).toBe('to all')
  expect(said.links).toMatch(/^[0-9a-f]{12}$/)
  expect(said.closed).not.toMatch(/of root|root:/)
  expect(said.closed).toContain('No such file')
  expect(said.etc?.split('\n')).toHaveLength(3)
  expect(said.places).not.toMatch(/boot|srv|media|sluicebox/)
  expect([said.owners, said.wrote]).toEqual(['', 'mine'])
  const size = Number(said.second.replace('to all', '').trim())
  expect(size).toBeGreaterThan(2 ** 20)
  expect(size).toBeLessThanOrEqual(16 * 2 ** 20)
  const [key, ...others] = keysIn(home)
  expect(others).toEqual([])
  expect(key).not.toContain(KEY)
  expect(statSync(join(home, 'hosts', String(key), 'root.erofs')).mode & 0o777).toBe(0o400)
  expect(readdirSync(join(home, 'hosts', 'view'))).toEqual([])
})

test('B24: each state of the host has an image of its own, of which the last two stay, and those that boxes need', async ({
  skip,
}) => {
  needMounts(skip)
  const home = makeFolder()('home')
  const file = join(usr, 'share/open')
  const make = async (name: string) => {
    // One that is not started has its disks already.
    await onSmallHost(usr, `${creating(home, { name, start: false })} await create(); await runtime.close(); say(1)`)
    return keysIn(home)
  }
  const at = (seconds: number) => utimesSync(file, seconds, seconds)
  const first = await make('one')
  expect(first).toHaveLength(1)
  expect(await make('like')).toEqual(first)
  at(1)
  const second = (await make('two')).filter((key) => !first.includes(key))
  expect(second).toHaveLength(1)
  const gone = `const runtime = new Runtime({ home: ${JSON.stringify(home)}, isolation: 'vm' })
    await runtime.remove('two'); await runtime.close(); say(1)`
  await onSmallHost(usr, gone)
  for (const [index, name] of ['three', 'four'].entries()) {
    at(index + 2)
    await make(name)
  }
  const left = keysIn(home)
  expect(left).toHaveLength(3)
  expect(left).toContain(first[0])
  expect(left).not.toContain(second[0])
})

test('B24: the second of them goes on from the boot of the first, and one of another state of the host does not', async ({
  skip,
}) => {
  needMounts(skip)
  const folder = makeFolder()
  const templates = join(folder('templates'), 'here')
  const kept = async (boxes: number) => {
    const module = `${creating(folder('home'), {}, templates)}
      const told = []
      for (let n = 0; n < ${boxes}; n++) {
        const box = await create()
        told.push((await box.run(['cat', '/usr/share/open'])).stdout)
        await box.remove({ force: true })
      }
      await runtime.close()
      say(told)`
    expect(await onSmallHost(usr, module)).toEqual(Array.from({ length: boxes }, () => 'to all'))
    return readdirSync(templates)
  }
  const first = await kept(2)
  expect(first).toHaveLength(1)
  utimesSync(join(usr, 'share/open'), 9, 9)
  const both = await kept(1)
  expect(both).toHaveLength(2)
  expect(both).toEqual(expect.arrayContaining(first))
})

test('H6: a box that is not wanted any more ends the making of its root, and nothing of it stays', async ({ skip }) => {
  needMounts(skip)
  const home = makeFolder()('home')
  const said = await onSmallHost<{ name: string; boxes: unknown[] }>(
    usr,
    `${creating(home, {})}
    const abort = new AbortController()
    const onProgress = ({ total }) => { if (total) abort.abort() }
    const error = await create({ signal: abort.signal, onProgress }).catch((error) => error)
    await runtime.close()
    say({ name: error.name, boxes: await new Runtime({ home: ${JSON.stringify(home)} }).list() })`,
  )
  expect(said).toEqual({ name: 'AbortError', boxes: [] })
  expect(keysIn(home)).toEqual([])
})

test('B26: without mkfs.erofs, or without room, create() says what to do, and leaves nothing', async ({ skip }) => {
  needMounts(skip)
  const home = makeFolder()('home')
  const ask = (prepare: string) =>
    onSmallHost<{ code: string; hint: string; message: string; problems: { fix: string }[]; boxes: unknown[] }>(
      usr,
      `${creating(home, {})}
      const { code, hint, message } = await create().catch((error) => error)
      say({ code, hint, message, problems: (await runtime.doctor()).problems, boxes: await runtime.list() })
      await runtime.close()`,
      prepare,
    )
  const lacking = await ask(`mount --bind /dev/null ${usr}/bin/mkfs.erofs`)
  expect(lacking).toMatchObject({ code: 'UNSUPPORTED', hint: expect.stringContaining('erofs-utils'), boxes: [] })
  expect(lacking.problems.map(({ fix }) => fix)).toEqual([lacking.hint])
  rmSync(home, { recursive: true, force: true })
  mkdirSync(home, { mode: 0o700 })
  const full = await ask(`mount -t tmpfs -o size=16m,mode=700 none ${home}`)
  expect(full).toMatchObject({ code: 'NO_SPACE', message: expect.stringMatching(/take \d+ MiB .* \d+ MiB are free/) })
  expect(full).toMatchObject({ boxes: [], problems: [] })
})
