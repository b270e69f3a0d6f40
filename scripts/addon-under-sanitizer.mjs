// Runs the SDK's tests on an addon built with a sanitizer: addon-under-sanitizer.mjs asan|tsan [vitest arguments]
import { join } from 'node:path'
import { addon } from './build.mjs'
import { bin, capture, node, root } from './shell.mjs'

const variants = {
  // Leaks of a vitest fork are not seen, and its own are: the native tests look for ours.
  asan: { config: 'Asan', library: 'libasan.so', env: { ASAN_OPTIONS: 'detect_leaks=0' } },
  // A race in a fork would not fail the run without halt_on_error; the bundler's own races are none of ours.
  tsan: {
    config: 'Tsan',
    library: 'libtsan.so',
    env: { TSAN_OPTIONS: 'halt_on_error=1:ignore_noninstrumented_modules=1' },
  },
}
const chosen = variants[process.argv[2]]
if (!chosen) {
  console.error('usage: addon-under-sanitizer.mjs asan|tsan')
  process.exit(2)
}
addon(chosen.config)
const library = capture('g++', [`-print-file-name=${chosen.library}`]).stdout.trim()
node(bin('vitest', 'vitest.mjs'), ['run', ...process.argv.slice(3)], {
  env: {
    ...process.env,
    ...chosen.env,
    LD_PRELOAD: library,
    SLUICEBOX_ADDON: join(root, 'build', chosen.config, 'sluicebox_test.node'),
  },
})
