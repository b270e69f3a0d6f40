// This host with few programs, in a mount namespace of its own: /usr is a small tree of copies, /opt is empty. What is made of all
// programs of a host is made of these in a second, by the same code.
import { execFile } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { program } from './qemu.js'

const root = new URL('../../', import.meta.url)
const SDK = new URL('dist/index.js', root).href
const PROGRAMS = ['sh', 'cat', 'ls', 'find', 'true', 'mount', 'sleep', 'stat', 'qemu-system-x86_64', 'mkfs.erofs']
/** QEMU's own. */
const DATA = ['share/qemu', 'share/seabios', 'lib/x86_64-linux-gnu/qemu', 'lib/aarch64-linux-gnu/qemu']

/** A /usr for it, at `path`. */
export async function makeSmallUsr(path: string): Promise<void> {
  for (const name of ['bin', 'sbin', 'lib64', 'share']) mkdirSync(join(path, name), { recursive: true })
  const addon = new URL('build/Release/sluicebox.node', root).pathname
  const found = PROGRAMS.map((name) => ['/usr/bin', '/usr/sbin'].map((each) => join(each, name)).find(existsSync))
  for (const each of [...found, process.execPath, addon]) {
    if (!each) throw new Error(`the host lacks one of ${PROGRAMS}`)
    const { stdout } = await program('ldd', [each])
    // As the host's links lead to /usr.
    const libraries = [...stdout.matchAll(/\/[^\s()]+/g)].map(([library]) => library).filter((name) => name !== addon)
    const own = each === addon ? [] : [each === process.execPath ? '/usr/bin/node' : each]
    for (const name of [...own, ...libraries]) {
      const place = join(path, name.replace(/^\/usr/, ''))
      mkdirSync(dirname(place), { recursive: true })
      if (!existsSync(place)) copyFileSync(realpathSync(name === '/usr/bin/node' ? process.execPath : name), place)
    }
  }
  for (const name of DATA.filter((each) => existsSync(join('/usr', each))))
    cpSync(join('/usr', name), join(path, name), { recursive: true, dereference: true })
  writeFileSync(join(path, 'share/open'), 'to all')
  writeFileSync(join(path, 'share/closed'), 'of root', { mode: 0o600 })
}

/** What a module that has `Runtime` gives to `say`. Needs the right to mount. */
export async function onSmallHost<T>(usr: string, module: string, prepare = ':'): Promise<T> {
  const mounts = [
    // A kernel that is installed has its modules there.
    `[ ! -d /usr/lib/modules ] || { mkdir -p ${usr}/lib/modules; mount --bind /usr/lib/modules ${usr}/lib/modules; }`,
    `mount --rbind ${usr} /usr`,
    '[ ! -d /opt ] || mount -t tmpfs none /opt',
  ]
  const script = [prepare, ...mounts, 'exec /usr/bin/node --input-type=module -e "$0"'].join('\n')
  const source = `import { Runtime } from ${JSON.stringify(SDK)}\nconst say = (told) => console.log(JSON.stringify(told))\n${module}`
  const { stdout } = await promisify(execFile)('unshare', ['--mount', 'sh', '-euc', script, source])
  return JSON.parse(stdout) as T
}
