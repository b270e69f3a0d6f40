// Makes a fresh clone ready: system packages, npm packages, the kernel of virtual machines, the native build, the compiled TypeScript.
// Quick when nothing changed.
// Built-ins only: it runs before node_modules exists. Usage: setup.mjs start|test
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from './build.mjs'
import { guestKernel } from './guest-kernel.mjs'
import { attempt, root, run } from './shell.mjs'

// As clang calls it.
const machine = { x64: 'x86_64', arm64: 'aarch64' }[process.arch]

// Each system package with a file or command that proves it is there.
const toRun = [
  ['g++', 'g++'],
  ['cmake', 'cmake'],
  ['ninja-build', 'ninja'],
  ['libdeflate-dev', '/usr/include/libdeflate.h'],
  ['liblz4-dev', '/usr/include/lz4.h'],
  ['libzstd-dev', '/usr/include/zstd.h'],
  ['libseccomp-dev', '/usr/include/seccomp.h'],
  ['libxxhash-dev', '/usr/include/xxhash.h'],
  ['nlohmann-json3-dev', '/usr/include/nlohmann/json.hpp'],
  ['bubblewrap', 'bwrap'],
  ['qemu-utils', 'qemu-img'],
  ['e2fsprogs', 'mkfs.ext4'],
  ['erofs-utils', 'mkfs.erofs'],
  ['qemu-system-x86', 'qemu-system-x86_64'],
  ['busybox-static', '/bin/busybox'],
]
const toTest = [
  ['git', 'git'],
  ['clang-19', 'clang++-19'],
  ['clang-format-19', 'clang-format-19'],
  ['clang-tidy-19', 'clang-tidy-19'],
  ['libclang-rt-19-dev', `/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.fuzzer-${machine}.a`],
  ['doctest-dev', '/usr/include/doctest/doctest.h'],
  ['7zip', '7zz'],
  ['libvmdk-utils', 'vmdkinfo'],
  ['libvhdi-utils', 'vhdiinfo'],
  ['libqcow-utils', 'qcowinfo'],
]

systemPackages(process.argv[2] === 'test' ? [...toRun, ...toTest] : toRun)
npmPackages()
guestKernel()
build('release')
build('typescript')

function systemPackages(wanted) {
  const missing = wanted.filter(([, proof]) => !isThere(proof)).map(([name]) => name)
  if (missing.length === 0) return
  const install = ['install', '-y', '--no-install-recommends', ...missing]
  if (process.getuid() !== 0 || !isThere('apt-get')) {
    console.error(`Sluicebox needs these system packages: ${missing.join(', ')}. Install them and run this again:\n`)
    console.error(`    sudo apt-get update && sudo apt-get ${install.join(' ')}\n`)
    process.exit(1)
  }
  console.log(`Installing system packages: ${missing.join(', ')}`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  // A stale package list is the usual reason for a failing install, a failing update is not fatal by itself.
  attempt('apt-get', ['update', '-q'], { env })
  run('apt-get', ['-q', ...install], { env })
}

function isThere(proof) {
  if (proof.startsWith('/')) return existsSync(proof)
  // sbin holds mkfs.ext4 and is not on every user's PATH.
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
  return spawnSync('sh', ['-c', 'command -v "$1"', 'sh', proof], { env, stdio: 'ignore' }).status === 0
}

function npmPackages() {
  const lock = readFileSync(join(root, 'package-lock.json'))
  const wanted = createHash('sha256').update(lock).update(process.version).digest('hex')
  const stamp = join(root, 'node_modules', '.setup')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return
  run('npm', ['ci', '--no-audit', '--no-fund'])
  writeFileSync(stamp, wanted)
}
