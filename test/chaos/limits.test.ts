// A process at its limits: what a runtime says when the system gives it nothing.
import { expect, test } from 'vitest'
import { runModule } from '../support/child.js'

test('H29: a runtime that gets no thread at all is INTERNAL at its constructor, and says what to raise', async () => {
  const ended = await runModule(`
    import { execFileSync } from 'node:child_process'
    import { readFileSync } from 'node:fs'
    // From here on there is room for what a call needs, and for no thread's stack.
    const kib = Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1])
    const limit = (soft) => execFileSync('prlimit', ['--pid', String(process.pid), '--as=' + soft + ':'])
    limit((kib + 4096) * 1024)
    let error
    try { globalThis.kept = new Runtime({ workers: 4 }) } catch (thrown) { error = thrown }
    process.stdout.write([error instanceof SluiceboxError, error?.code, error?.op, error?.hint?.includes('ulimit -u')].join(' '))
    process.exit()
  `)
  expect(ended).toMatchObject({ signal: null, code: 0, stdout: 'true INTERNAL new Runtime true', stderr: '' })
})
