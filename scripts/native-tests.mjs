// Builds and runs the native unit tests under a sanitizer: native-tests.mjs asan|tsan [doctest's arguments]
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpus } from 'node:os'
import { nativeTests } from './build.mjs'
import { root } from './shell.mjs'

// What takes longest, first; beside it all that these leave.
const long = ['rebase_*', 'convert_*', 'vhdx_*', 'resize_*,commit_*', 'vhd_*,vmdk_*,qcow2_*', 'differen*'].map(
  (names) =>
    names
      .split(',')
      .map((name) => `*test/image/${name}`)
      .join(','),
)

export const sanitizers = {
  asan: {
    config: 'Asan',
    env: { ASAN_OPTIONS: 'detect_leaks=1', UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1' },
    // As many at once as there are processors.
    shards: [...long.map((files) => [`--source-file=${files}`]), [`--source-file-exclude=${long.join(',')}`]],
  },
  // Only what threads share is built for it: see SLUICEBOX_TESTS in native/CMakeLists.txt.
  tsan: {
    config: 'Tsan',
    env: { TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1' },
    shards: [[]],
  },
}

const chosen = sanitizers[process.argv[2]]
if (!chosen) {
  console.error('usage: native-tests.mjs asan|tsan [arguments]')
  process.exit(2)
}
nativeTests(chosen.config)
const asked = process.argv.slice(3)
const waiting = asked.length > 0 ? [asked] : [...chosen.shards]
let worst = 0
await Promise.all(cpus().map(runWaiting))
process.exit(worst)

async function runWaiting() {
  for (let args = waiting.shift(); args; args = waiting.shift()) worst = Math.max(worst, await shard(args))
}

async function shard(args) {
  const child = spawn(`build/native-${chosen.config}/native_tests`, args, {
    cwd: root,
    env: { ...process.env, ...chosen.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      text += chunk
    })
  }
  const [code, signal] = await once(child, 'close')
  console.log(text)
  if (code !== 0) console.log(`native_tests ${args.join(' ')} ended with ${signal ?? code}`)
  return code ?? 1
}
