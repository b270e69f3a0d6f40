import { defineConfig } from 'vitest/config'

// forks, not threads: a native crash then fails one file, and the others still report.
export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    env: {
      SLUICEBOX_ADDON:
        process.env.SLUICEBOX_ADDON ?? new URL('build/Release/sluicebox_test.node', import.meta.url).pathname,
    },
    // Long enough for a slow machine: whatever a test waits for has a name, and a deadline of its own before that.
    testTimeout: 900_000,
    hookTimeout: 900_000,
    teardownTimeout: 120_000,
    // Files in vitest's own order, the largest first: they end together.
    sequence: { shuffle: { files: false, tests: true } },
  },
})
