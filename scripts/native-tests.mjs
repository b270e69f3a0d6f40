// Builds and runs the native unit tests under a sanitizer: native-tests.mjs asan|tsan [doctest's arguments]
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { nativeTests } from './build.mjs'
import { root } from './shell.mjs'

const half = '*test/image/rebase_*,*test/image/commit_*,*test/image/convert_image*'

export const sanitizers = {
  asan: {
    config: 'Asan',
    env: { ASAN_OPTIONS: 'detect_leaks=1', UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1' },
    // Two at once, each about half of the time.
    shards: [[`--source-file=${half}`], [`--source-file-exclude=${half}`]],
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
const codes = await Promise.all((asked.length > 0 ? [asked] : chosen.shards).map(shard))
process.exit(Math.max(...codes))

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
