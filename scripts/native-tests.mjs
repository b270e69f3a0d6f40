// Builds and runs the native unit tests under a sanitizer: native-tests.mjs asan|tsan
import { nativeTests } from './build.mjs'
import { run } from './shell.mjs'

export const sanitizers = {
  asan: {
    config: 'Asan',
    env: { ASAN_OPTIONS: 'detect_leaks=1', UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1' },
  },
  // What threads share is in base and event_queue. An image belongs to one thread, and its tests start qemu-img, whose start hangs
  // under this sanitizer.
  tsan: {
    config: 'Tsan',
    args: ['--source-file=*test/event_queue/*,*test/base/*'],
    env: { TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1' },
  },
}

const chosen = sanitizers[process.argv[2]]
if (!chosen) {
  console.error('usage: native-tests.mjs asan|tsan')
  process.exit(2)
}
nativeTests(chosen.config)
run(`build/native-${chosen.config}/native_tests`, [...(chosen.args ?? []), ...process.argv.slice(3)], {
  env: { ...process.env, ...chosen.env },
})
