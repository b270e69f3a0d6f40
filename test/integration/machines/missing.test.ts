// Hosts that lack what virtual machines need, as a mount namespace of its own can show one.
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { runtimeOver } from '../../support/boxes.js'
import { makeFolder } from '../../support/folder.js'
import { needMachines } from '../../support/machine.js'
import { machineRoot } from '../../support/machine-root.js'

const root = new URL('../../../', import.meta.url)

/** What doctor() and create() say, as one line of JSON. */
const asks = (disk: string, home: string) => `
import { Runtime } from '${new URL('dist/index.js', root).href}'
const runtime = new Runtime({ home: ${JSON.stringify(home)} })
const { hypervisor, isolation, problems } = await runtime.doctor()
const rootfs = { disk: ${JSON.stringify(disk)}, format: 'raw' }
const { code, message, hint, path } = await runtime.create({ isolation: 'vm', rootfs }).catch((error) => error)
console.log(JSON.stringify({ hypervisor, isolation, problems, code, message, hint, path, left: await runtime.list() }))
await runtime.close()
`

/** With what hides them done first; needs no rights. */
async function ask(hide: string, disk = machineRoot()) {
  const script = asks(disk, makeFolder()('home'))
  const command = `${hide}\nexec "$0" --input-type=module -e "$1"`
  const namespaces = ['--user', '--map-root-user', '--mount']
  const { stdout } = await promisify(execFile)('unshare', [
    ...namespaces,
    ...['sh', '-euc', command, process.execPath, script],
  ])
  return JSON.parse(stdout)
}

test('B26: without QEMU, create() fails at once and says what to install; doctor() says the same', async () => {
  needMachines()
  const said = await ask('mount --bind /dev/null /usr/bin/qemu-system-x86_64')
  expect(said).toMatchObject({ code: 'UNSUPPORTED', hint: expect.stringContaining('qemu-system-x86'), left: [] })
  expect(said.hypervisor).toMatchObject({ name: null, accel: [] })
  expect(said.isolation.vm).toEqual({ usable: false, why: said.message.replace(/^create: /, '') })
  expect(said.problems[0].fix).toBe(said.hint)
})

test('B26: without a kernel the same, and none is fetched', async () => {
  needMachines()
  const places = ['/boot', new URL('build/guest', root).pathname]
  const said = await ask(places.map((place) => `! [ -d ${place} ] || mount -t tmpfs none ${place}`).join('\n'))
  expect(said).toMatchObject({ code: 'UNSUPPORTED', hint: expect.stringContaining('linux-image'), left: [] })
  expect(said.hypervisor).toMatchObject({ name: 'qemu', accel: [], kernel: null })
  expect(said.problems[0].fix).toBe(said.hint)
})

test('B26: without its base a box fails at once, and names it', async () => {
  needMachines()
  const disk = makeFolder()('nowhere.raw')
  expect(await ask(':', disk)).toMatchObject({ code: 'IMAGE_NOT_FOUND', path: disk, left: [] })
})

test('doctor() has made a box of namespaces to see whether one comes up, and says why processors are emulated', async () => {
  needMachines()
  const runtime = runtimeOver('passed')
  const { isolation, ok, problems } = await runtime.doctor()
  expect({ ok, problems }).toEqual({ ok: true, problems: [] })
  expect(isolation).toEqual({
    vm: { usable: true, why: expect.stringMatching(/^its processors are emulated: ./) },
    namespace: { usable: true },
  })
  expect(readdirSync(tmpdir()).filter((name) => name.startsWith('sluicebox-try-'))).toEqual([])
  // The root of a namespace that has one id cannot give a box a range of them.
  const said = await ask(':')
  expect(said.isolation.namespace).toEqual({ usable: false, why: expect.stringContaining('range of ids') })
  expect(said.problems).toHaveLength(1)
})
