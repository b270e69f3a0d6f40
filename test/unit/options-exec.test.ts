// What an execution is asked with: refused at the door by name, or read into what the addon takes.
import { Readable } from 'node:stream'
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { execRequest } from '../../lib/exec-request.js'
import { InvalidArgumentError } from '../../lib/index.js'
import type { BoxConfig } from '../../lib/options-box.js'
import { readExec, readRun, readShell, readTerminalSize } from '../../lib/options-exec.js'

const config: BoxConfig = {
  env: { LANG: 'C', PATH: '/bin' },
  cwd: '/srv',
  user: { kind: 'root' },
  labels: {},
  clock: { onIdle: 'stop' },
}

const refusal = (call: () => unknown): InvalidArgumentError => {
  try {
    const accepted = call()
    throw new Error(`accepted as ${inspect(accepted)}`)
  } catch (error) {
    if (error instanceof InvalidArgumentError) return error
    throw error
  }
}

test.each([
  [[], 'argv'],
  ['ls -l', 'argv'],
  [undefined, 'argv'],
  [null, 'argv'],
  [[''], 'argv[0]'],
  [['a\0b'], 'argv[0]'],
  [['ls', 1], 'argv[1]'],
  [['ls', undefined], 'argv[1]'],
  [['ls', 'a\0'], 'argv[1]'],
  // biome-ignore lint/suspicious/noSparseArray: a hole is what is tried
  [['ls', , 'b'], 'argv[1]'],
] as const)('X22: argv %j is refused', (argv, argument) => {
  for (const call of [() => readExec(argv, {}), () => readRun('box.run', argv, {})])
    expect(refusal(call)).toMatchObject({ code: 'INVALID_ARGUMENT', argument })
})

const badNumber = [null, -1, 1.5, '5', Number.NaN]
const badChoice = [null, 0, '', 'nope', true]
const bad: Record<string, readonly unknown[]> = {
  id: [null, 0, '', 'a/b', '-a', 'a\0b'],
  cwd: [null, 0, '', 'a\0b'],
  env: [null, 0, [], { '': 'x' }, { 'a=b': 'x' }],
  user: [null, -1, '', true],
  input: [null, 0, {}, [], new ArrayBuffer(1)],
  stdin: [null, 0, true, 'text', {}, new Uint8Array(1), () => {}],
  stdout: [...badChoice, 'stdout'],
  stderr: badChoice,
  tty: [null, 0, 'yes', []],
  timeoutMs: [...badNumber, 0, 2 ** 31],
  killSignal: [null, 15, '', 'TERM', 'SIGNONE', 'SIGRTMIN+31', 'SIGRTMIN', 'sigterm'],
  forceKillAfterMs: [...badNumber, true, 2 ** 31],
  highWaterMark: [null, 0, -1, 'x', 2 ** 31],
  signal: [null, {}, 'x'],
}
const badOfRun: Record<string, readonly unknown[]> = {
  encoding: badChoice,
  check: [null, 0, 'true'],
  stripFinalNewline: [null, 1],
  all: [null, 1],
  maxBuffer: [...badNumber],
  overflow: badChoice,
  onStdout: [null, 0, 'x'],
  onStderr: [null, 0, {}],
}

test.each(Object.keys(bad))('H30, S27: each bad value of the option %s is refused by its name', (argument) => {
  for (const value of bad[argument] as readonly unknown[]) {
    const options = { [argument]: value }
    for (const call of [() => readExec(['ls'], options), () => readRun('box.run', ['ls'], options)])
      expect(refusal(call), inspect(value)).toMatchObject({ argument })
  }
})

test.each(Object.keys(badOfRun))('H30: each bad value of the option %s of run() is refused by its name', (argument) => {
  for (const value of badOfRun[argument] as readonly unknown[])
    expect(
      refusal(() => readRun('box.run', ['ls'], { [argument]: value })),
      inspect(value),
    ).toMatchObject({ argument })
  expect(refusal(() => readExec(['ls'], { [argument]: undefined }))).toMatchObject({ argument })
})

test('X25: a bad key or value of env is refused by its name', () => {
  expect(refusal(() => readExec(['ls'], { env: { A: 1 } })).argument).toBe('env.A')
  expect(refusal(() => readExec(['ls'], { env: { A: 'x\0' } })).argument).toBe('env.A')
})

test('X2: input together with stdin is refused, and so is a pipe that nobody of run() could write to', () => {
  expect(refusal(() => readExec(['cat'], { input: 'x', stdin: 'pipe' })).argument).toBe('input')
  expect(refusal(() => readRun('box.run', ['cat'], { stdin: 'pipe' })).argument).toBe('stdin')
  expect(refusal(() => readExec(['cat'], { input: '', stdin: 'ignore' })).argument).toBe('input')
})

test.each(['pipe', 'source'])('X2: the word %s as input is text', (word) => {
  expect(readExec(['cat'], { input: word }).stdin).toEqual({ kind: 'bytes', bytes: Buffer.from(word) })
})

test('a source of stdin is a stream or an iterable', () => {
  for (const source of [Readable.from(['a']), new ReadableStream(), [Buffer.from('a')], (async function* () {})()])
    expect(readExec(['cat'], { stdin: source }).stdin.kind).toBe('source')
})

test('X15, X22: a size of a terminal is two integers from 1 to 65535', () => {
  for (const [size, argument] of [
    [{ cols: 0, rows: 1 }, 'cols'],
    [{ cols: 1, rows: -1 }, 'rows'],
    [{ cols: 65_536, rows: 1 }, 'cols'],
    [{ cols: 1 }, 'rows'],
    [{ cols: 1, rows: 1, x: 1 }, 'size.x'],
  ] as const)
    expect(refusal(() => readTerminalSize('execution.resize', size)).argument).toBe(argument)
  expect(refusal(() => readExec(['ls'], { tty: { cols: 0, rows: 1 } })).argument).toBe('tty.cols')
  expect(refusal(() => readExec(['ls'], { tty: true, stderr: 'ignore' })).argument).toBe('stderr')
})

const environment = (options: object, of = config): string[] =>
  (execRequest(readExec(['ls'], options), of, false) as { env: string[] }).env.toSorted()

test('X25: the environment is the defaults, the box’s, then the call’s; undefined removes; nothing is of the host', () => {
  process.env.SLUICEBOX_TEST_LEAK = 'leak'
  expect(environment({})).toEqual(['HOME=/root', 'LANG=C', 'PATH=/bin'])
  expect(environment({ env: { LANG: 'de', PATH: undefined, HOME: undefined, A: '' } })).toEqual(['A=', 'LANG=de'])
  expect(environment({ user: 1000 })).toEqual(['LANG=C', 'PATH=/bin'])
  expect(environment({ user: 0 })).toContain('HOME=/root')
  const bare = { ...config, env: {} }
  expect(environment({}, bare)).toContain('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin')
  delete process.env.SLUICEBOX_TEST_LEAK
})

test('X9: TERM is there for a terminal only: the option, else the call’s, else a plain one', () => {
  expect(environment({ tty: true })).toContain('TERM=xterm')
  expect(environment({ tty: true, env: { TERM: 'vt100' } })).toContain('TERM=vt100')
  expect(environment({ tty: { cols: 1, rows: 1, term: 'dumb' }, env: { TERM: 'vt100' } })).toContain('TERM=dumb')
  expect(environment({}).join()).not.toContain('TERM')
})

test('the request has what the addon takes', () => {
  const request = (options: object) => execRequest(readExec(['ls', '-l'], options), config, true)
  expect(request({})).toMatchObject({
    argv: ['ls', '-l'],
    cwd: '/srv',
    user: { kind: 'root' },
    stdin: 'null',
    stdout: 'pipe',
    stderr: 'pipe',
    timeoutMs: 0,
    killSignal: 15,
    graceMs: 5000,
    highWaterMark: 2 ** 20,
    framed: true,
  })
  expect(request({ cwd: 'sub', user: 'www', stdin: 'pipe', stdout: 'ignore', stderr: 'stdout' })).toMatchObject({
    cwd: '/srv/sub',
    user: { kind: 'name', name: 'www' },
    stdin: 'pipe',
    stdout: 'null',
    stderr: 'stdout',
  })
  const killed = { forceKillAfterMs: false, killSignal: 'SIGRTMIN+2', user: { uid: 1, gid: 2 } }
  expect(request(killed)).toMatchObject({ graceMs: -1, killSignal: 36, user: { kind: 'ids', uid: 1, gid: 2 } })
  // A terminal is open both ways, also where nothing is to be written.
  expect(request({ tty: { cols: 3, rows: 4 } })).toMatchObject({
    stdin: 'pipe',
    stderr: 'stdout',
    tty: { cols: 3, rows: 4 },
  })
})

test('X61: shell() gives its script as one argument of -c', () => {
  expect(readShell('echo "$1"; x', {}).argv).toEqual(['/bin/sh', '-c', 'echo "$1"; x'])
  expect(readShell('x', { shell: '/bin/bash' }).argv).toEqual(['/bin/bash', '-c', 'x'])
  expect(refusal(() => readShell(1, {})).argument).toBe('script')
  expect(refusal(() => readShell('a\0', {})).argument).toBe('script')
})

test('argv is copied at the call', () => {
  const argv = ['ls']
  const { argv: read } = readExec(argv, {})
  argv.push('-l')
  expect(read).toEqual(['ls'])
})
