// What the peer of the bench's machines needs to be reached by ssh: dropbear with its libraries in build/ssh-guest, a kernel with
// virtio-net, and this host's own ssh. Run by the bench when it gets there; quick when all is there.
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { downloadPackage, missingForPackages, renewLists, unpackPackages } from './debian-package.mjs'
import { kernelWith } from './guest-kernel.mjs'
import { capture, root } from './shell.mjs'

const place = join(root, 'build', 'ssh-guest')
// With those of its libraries that a host is not likely to have.
const packages = ['dropbear-bin', 'libtomcrypt1', 'libtommath1', 'libgmp10']

const problem = client() ?? kernelWith('kernel/drivers/net/virtio_net.ko') ?? server()
if (problem !== undefined) {
  console.error(`The figures against ssh cannot be taken: ${problem}.`)
  process.exit(1)
}

function client() {
  const found = ['ssh', 'ssh-keygen'].every((name) => capture('sh', ['-c', 'command -v "$0"', name]).code === 0)
  return found ? undefined : 'there is no ssh here (apt-get install openssh-client)'
}

function server() {
  if (existsSync(join(place, 'dropbear'))) return
  const missing = missingForPackages()
  if (missing) return `dropbear is a Debian package, and ${missing}`
  mkdirSync(dirname(place), { recursive: true })
  const folder = mkdtempSync(join(dirname(place), 'ssh-guest-'))
  try {
    return fetchServer(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function fetchServer(folder) {
  const fetched = () => packages.every((name) => downloadPackage(name, folder))
  if (!fetched() && !(renewLists() && fetched())) return 'apt-get could not download dropbear-bin (is there a network?)'
  const tree = join(folder, 'tree')
  if (unpackPackages(folder, tree)) return 'dropbear-bin could not be unpacked'
  const made = join(folder, 'made')
  mkdirSync(join(made, 'lib'), { recursive: true })
  const program = join(tree, 'usr/sbin/dropbear')
  const triplet = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch]
  const LD_LIBRARY_PATH = join(tree, 'usr/lib', triplet)
  const { stdout } = capture('ldd', [program], { env: { ...process.env, LD_LIBRARY_PATH } })
  const lost = stdout.match(/(\S+) => not found/)?.[1]
  if (lost) return `dropbear needs the library ${lost}, which this host has not`
  // The loader's own path is in the program; the guest has it there.
  for (const [, path] of stdout.matchAll(/(\/\S+) \(0x/g))
    cpSync(path, join(made, 'lib', basename(path)), { dereference: true })
  cpSync(program, join(made, 'dropbear'))
  rmSync(place, { recursive: true, force: true })
  renameSync(made, place)
}
