// The kernel of virtual machines: Debian's cloud kernel, unpacked into build/guest and never installed, for that would change how this
// machine starts. Without apt or a network there is none, and boxes of virtual machines are missing: said, not failed.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { attempt, capture, root } from './shell.mjs'

const wanted = 'linux-image-cloud-amd64'
const place = join(root, 'build', 'guest')
// Where native/box looks for the drivers of a machine, and for what they need.
const kept = [
  'modules.builtin',
  'kernel/drivers/virtio',
  'kernel/drivers/char',
  'kernel/drivers/block',
  'kernel/fs/erofs',
  'kernel/fs/overlayfs',
  'kernel/lib',
  'kernel/crypto',
]

/** Quick when a kernel is there. */
export function guestKernel() {
  if (holdsKernel(place, join(place, 'modules')) || holdsKernel('/boot', '/lib/modules')) return
  let problem
  try {
    problem = fetchKernel()
  } catch (error) {
    problem = error.message
  }
  if (problem === undefined) return
  console.warn(`\nBoxes of virtual machines will be missing: ${problem}.`)
  console.warn(
    `Everything else works. To have them, install ${wanted} (its modules must end in .ko), or run this again when that is mended.\n`,
  )
}

function holdsKernel(images, modules) {
  return releasesIn(images).some((release) =>
    existsSync(join(modules, release, 'kernel/drivers/char/virtio_console.ko')),
  )
}

function releasesIn(images) {
  if (!existsSync(images)) return []
  return readdirSync(images).flatMap((name) => name.match(/^vmlinuz-(.+-cloud-amd64)$/)?.[1] ?? [])
}

/** What went wrong, or undefined. */
function fetchKernel() {
  if (process.arch !== 'x64') return `there is no such kernel for ${process.arch} here yet`
  for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb']) {
    if (capture(tool, ['--version']).code !== 0)
      return `their kernel is a Debian package, and this system has no ${tool}`
  }
  mkdirSync(dirname(place), { recursive: true })
  const folder = mkdtempSync(join(dirname(place), 'guest-'))
  try {
    return download(folder) ?? unpack(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function download(folder) {
  let name = packageName()
  if (name !== undefined && tryDownload(name, folder)) return
  // A stale list names a package that the server has no more. Only root can renew it.
  if (process.getuid() === 0) {
    attempt('apt-get', ['update', '-q'])
    name = packageName()
    if (name !== undefined && tryDownload(name, folder)) return
  }
  return name === undefined
    ? `apt knows no package ${wanted} (apt-get update may help)`
    : `apt-get could not download ${name} (is there a network?)`
}

/** The kernel's own: the wanted one only depends on the latest. */
function packageName() {
  const { stdout } = capture('apt-cache', ['depends', '--important', wanted])
  return stdout.match(/^\s*Depends:\s*(linux-image-\S+)/m)?.[1]
}

function tryDownload(name, folder) {
  console.log(`Fetching the kernel of virtual machines: ${name}`)
  // Else apt warns that its own user cannot write here.
  const options = process.getuid() === 0 ? ['-o', 'APT::Sandbox::User=root'] : []
  return attempt('apt-get', ['-q', ...options, 'download', name], { cwd: folder }) === 0
}

function unpack(folder) {
  const file = readdirSync(folder).find((name) => name.endsWith('.deb'))
  const tree = join(folder, 'tree')
  if (file === undefined || attempt('dpkg-deb', ['-x', join(folder, file), tree]) !== 0)
    return 'their kernel could not be unpacked'
  const [release] = releasesIn(join(tree, 'boot'))
  const modules = ['lib', 'usr/lib']
    .map((lib) => join(tree, lib, 'modules', String(release)))
    .find((path) => existsSync(path))
  if (release === undefined || modules === undefined) return `${file} holds no kernel with modules`
  const made = join(folder, 'guest')
  for (const name of kept) {
    if (existsSync(join(modules, name)))
      cpSync(join(modules, name), join(made, 'modules', release, name), { recursive: true })
  }
  const image = `vmlinuz-${release}`
  cpSync(join(tree, 'boot', image), join(made, image))
  if (!holdsKernel(made, join(made, 'modules'))) return `${file} has no driver of virtual ports that ends in .ko`
  rmSync(place, { recursive: true, force: true })
  renameSync(made, place)
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) guestKernel()
