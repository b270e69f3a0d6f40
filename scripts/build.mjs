// Builds one variant: release | debug | asan | tsan (addon and native tests), fuzz, typescript.
import { cpus } from 'node:os'
import { pathToFileURL } from 'node:url'
import { bin, node, run } from './shell.mjs'

const jobs = String(Math.max(2, cpus().length))
const configs = { release: 'Release', debug: 'Debug', asan: 'Asan', tsan: 'Tsan' }

export function build(variant) {
  if (variant === 'typescript') return typescript()
  if (variant === 'fuzz') return fuzz()
  const config = configs[variant]
  if (!config) {
    console.error(`usage: build.mjs ${[...Object.keys(configs), 'fuzz', 'typescript'].join(' | ')}`)
    process.exit(2)
  }
  addon(config)
  if (variant !== 'release') nativeTests(config)
}

// In a debug build a change to one file compiles that file.
const unity = (config) => `SLUICEBOX_UNITY=${process.env.SLUICEBOX_UNITY ?? (config === 'Debug' ? 'OFF' : 'ON')}`

// cmake-js wants the configuration's name as the end of the folder's: the addon then lands right in it.
export function addon(config) {
  node(bin('cmake-js', 'bin/cmake-js'), [
    'compile',
    '-d',
    'native',
    '-B',
    config,
    '-O',
    `build/${config}`,
    '-p',
    jobs,
    '-l',
    'warn',
    `--CD${unity(config)}`,
  ])
}

export function nativeTests(config) {
  cmake(
    `build/native-${config}`,
    [`-DCMAKE_BUILD_TYPE=${config}`, `-D${unity(config)}`, '-DSLUICEBOX_TESTS=ON'],
    'native_tests',
  )
}

function fuzz() {
  cmake('build/fuzz', ['-DCMAKE_CXX_COMPILER=clang++-19', '-DSLUICEBOX_FUZZ=ON'], 'fuzz_targets')
}

function cmake(folder, options, target = 'all') {
  run('cmake', ['-S', 'native', '-B', folder, '-G', 'Ninja', ...options, '-Wno-dev', '--log-level=WARNING'])
  run('cmake', ['--build', folder, '-j', jobs, '--target', target])
}

function typescript() {
  const tsc = bin('typescript', 'bin/tsc')
  node(tsc, ['-p', 'tsconfig.json'])
  node(tsc, ['-p', 'tsconfig.tools.json'])
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) build(process.argv[2])
