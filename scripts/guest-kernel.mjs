// The kernel of virtual machines: Debian's cloud kernel, unpacked into build/guest and never installed, for that would change how this
// machine starts. Without apt or a network there is none, and boxes of virtual machines are missing: said, not failed.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { downloadPackage, missingForPackages, renewLists, unpackPackages } from './debian-package.mjs'
import { capture, root } from './shell.mjs'

const wanted = 'linux-image-cloud-amd64'
const portDriver = 'kernel/drivers/char/virtio_console.ko'
const place = join(root, 'build', 'guest')
// Where native/box looks for the drivers of a machine, and for what they need.
const kept = [
  'modules.builtin',
  'kernel/drivers/virtio',
  'kernel/drivers/char',
  'kernel/drivers/block',
  // Of no machine of ours: of the one that the bench reaches by ssh.
  'kernel/drivers/net/virtio_net.ko',
  'kernel/drivers/net/net_failover.ko',
  'kernel/net/core/failover.ko',
  'kernel/fs/erofs',
  'kernel/fs/overlayfs',
  'kernel/lib',
  'kernel/crypto',
]

/** Quick when a kernel is there. */
export function guestKernel() {
  const problem = kernelWith(portDriver)
  if (problem === undefined) return
  console.warn(`\nBoxes of virtual machines will be missing: ${problem}.`)
  console.warn(
    `Everything else works. To have them, install ${wanted} (its modules must end in .ko), or run this again when that is mended.\n`,
  )
}

/** Fetches one, unless one is there that has this driver. What went wrong, or undefined. */
export function kernelWith(driver) {
  if (holdsKernel(place, join(place, 'modules'), driver) || holdsKernel('/boot', '/lib/modules', driver)) return
  try {
    return fetchKernel()
  } catch (error) {
    return error.message
  }
}

function holdsKernel(images, modules, driver) {
  return releasesIn(images).some((release) => existsSync(join(modules, release, driver)))
}

function releasesIn(images) {
  if (!existsSync(images)) return []
  return readdirSync(images).flatMap((name) => name.match(/^vmlinuz-(.+-cloud-amd64)$/)?.[1] ?? [])
}

/** What went wrong, or undefined. */
function fetchKernel() {
  if (process.arch !== 'x64') return `there is no such kernel for ${process.arch} here yet`
  const missing = missingForPackages()
  if (missing) return `their kernel is a Debian package, and ${missing}`
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
  if (renewLists()) {
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
  return downloadPackage(name, folder)
}

function unpack(folder) {
  const tree = join(folder, 'tree')
  if (unpackPackages(folder, tree)) return 'their kernel could not be unpacked'
  const [release] = releasesIn(join(tree, 'boot'))
  const modules = ['lib', 'usr/lib']
    .map((lib) => join(tree, lib, 'modules', String(release)))
    .find((path) => existsSync(path))
  if (release === undefined || modules === undefined) return 'the package holds no kernel with modules'
  const made = join(folder, 'guest')
  for (const name of kept) {
    if (existsSync(join(modules, name)))
      cpSync(join(modules, name), join(made, 'modules', release, name), { recursive: true })
  }
  const image = `vmlinuz-${release}`
  cpSync(join(tree, 'boot', image), join(made, image))
  if (!holdsKernel(made, join(made, 'modules'), portDriver))
    return 'the package has no driver of virtual ports that ends in .ko'
  rmSync(place, { recursive: true, force: true })
  renameSync(made, place)
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) guestKernel()
