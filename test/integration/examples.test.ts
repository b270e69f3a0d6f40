// Each example runs, prints what its first line promises, and is short enough to be read.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { runNode } from '../support/child.js'

const root = new URL('../../', import.meta.url).pathname

/** With the addon that ships. */
function example(name: string) {
  const { SLUICEBOX_ADDON: _, ...env } = process.env
  return runNode([`${root}build/tools/examples/${name}.js`], { env, cwd: root, deadlineMs: 800_000 })
}

test.each([
  [
    'rebase',
    [/debian-12\.0\.qcow2 -> debian-12\.1\.qcow2, 0 clusters copied/, /names debian-12\.1\.qcow2, which is there/],
  ],
  ['cancel', [/rejected with: stopped at byte \d+ of \d+/, /still on old\.raw, 0 corruptions, 0 leaks/]],
  [
    'convert',
    [/^measured \d+ KiB, compressed \d+ KiB$/m, /^3\d\d\d KiB from 1024 KiB: data$/m, /^the same bytes: true$/m],
  ],
  ['inspect', [/^(qcow2|raw) .*\n(qcow2|raw) .*\n(qcow2|raw) /, /^sound$/m, /^IMAGE_[A-Z]+: /m]],
  [
    'stream-output',
    [
      /^stdout: step 1\nstdout: step 2\nstdout: step 3$/m,
      /^stderr: no step 4$/m,
      /^exit code 3 after three steps$/m,
      /^collected: 42$/m,
    ],
  ],
  [
    'stdin-and-tty',
    [/^sorted: box\nsorted: gate\nsorted: sluice$/m, /^size: 30 100$/m, /^answer: hello world$/m, /^exit code 0$/m],
  ],
  [
    'timeout-and-kill',
    [
      /^EXEC_TIMEOUT: it said "begun", and was ended by SIGTERM$/m,
      /^killed: true, by SIGTERM$/m,
      /^stubborn: SIGKILL, forced: true, killed again: false$/m,
    ],
  ],
  [
    'golden-image',
    [
      /^golden: 256 MiB, backing: none$/m,
      /^reads as the overlay does: true$/m,
      /^it holds: installed, and configured$/m,
    ],
  ],
  ['leave-running', [/^counter is running$/m, /^it counted on$/m, /^stopped: requested$/m]],
  [
    'pool',
    [
      /^ready: 2$/m,
      /^hello, Ada\nhello, Grace\nhello, Mary$/m,
      /^different boxes: 3$/m,
      /^left: 3$/m,
      /^still mine: yes$/m,
    ],
  ],
  ['vm-disk', [/^Linux \d+\.\d+.* x86_64/m, /^kept: written in a machine$/m, /^the base is as it was: true$/m]],
  [
    'clone',
    [
      /^the guest stood still for \d+\.\d ms$/m,
      /^3 clones of 3 in \d+ ms$/m,
      /^(?:[0-9a-f]{12} has [0-9a-f]{8}: first exec \d+ ms\n){3}/m,
      /^host names: 4, warm files: 1, random numbers: 4$/m,
    ],
  ],
  [
    'rebase-running-box',
    [
      /^moved from debian-12\.0\.raw to debian-12\.1\.raw under a writer$/m,
      /^stood still for \d+\.\d of the \d+\.\d ms that it took$/m,
      /^wrong reads: 0$/m,
    ],
  ],
] as const)('the %s example prints what it proves', async (name, lines) => {
  const { code, stdout, stderr } = await example(name)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  for (const line of lines) expect(stdout).toMatch(line)
})

test('the tour finds everything in order', async ({ skip }) => {
  const missing = await needed()
  if (missing) return skip(missing)
  const { code, stdout, stderr } = await example('tour')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).not.toContain('WRONG')
  expect(stdout.match(/ {2}ok: /g)?.length).toBeGreaterThanOrEqual(24)
  expect(stdout).toMatch(/huge\.qcow2: IMAGE_/)
  expect(stdout).toMatch(/spy\.qcow2: PERMISSION/)
})

async function needed(): Promise<string | undefined> {
  const { program } = await import('../support/qemu.js')
  for (const tool of ['mkfs.ext4', 'debugfs', 'qemu-img'])
    if ((await program('sh', ['-c', `command -v ${tool}`])).code !== 0) return `no ${tool} on this host`
  return undefined
}

test.each(['rebase', 'cancel', 'convert', 'inspect', 'stream-output', 'stdin-and-tty', 'timeout-and-kill'])(
  'the %s example has fewer than 40 lines, the first saying what you will see',
  (name) => {
    const lines = readFileSync(`${root}examples/${name}.ts`, 'utf8').trimEnd().split('\n')
    expect(lines.length).toBeLessThan(40)
    expect(lines[0]).toMatch(/^\/\/ You will see /)
  },
)
