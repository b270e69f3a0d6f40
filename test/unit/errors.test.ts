// The error classes: one for each native code, told apart by code, recognised across realms, with the caller's stack.
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import {
  BoxLostError,
  BoxNotFoundError,
  BoxStartError,
  ExecError,
  ExecFailedError,
  ExecLostError,
  ExecOverflowError,
  ExecSpawnError,
  ExecTimeoutError,
  ImageError,
  InvalidArgumentError,
  type RunResult,
  RuntimeClosedError,
  SluiceboxError,
} from '../../lib/index.js'
import { loadAddon } from '../../lib/native.js'
import { errorFactories, fromNative, withCallersStack } from '../../lib/native-errors.js'
import { makeFolder } from '../support/folder.js'
import { newGate, openRuntime, rejection, runWork } from '../support/producer.js'

const nativeCodes = loadAddon().addon.errorCodes
const names = new Map(nativeCodes)

const expected: Record<string, readonly [new (...args: never[]) => SluiceboxError, string]> = {
  invalid_argument: [InvalidArgumentError, 'INVALID_ARGUMENT'],
  unsupported: [ImageError, 'UNSUPPORTED'],
  closed: [RuntimeClosedError, 'RUNTIME_CLOSED'],
  cancelled: [SluiceboxError, 'INTERNAL'],
  permission: [SluiceboxError, 'PERMISSION'],
  no_space: [SluiceboxError, 'NO_SPACE'],
  snapshot_not_found: [SluiceboxError, 'SNAPSHOT_NOT_FOUND'],
  snapshot_exists: [SluiceboxError, 'SNAPSHOT_EXISTS'],
  io: [SluiceboxError, 'IO'],
  out_of_memory: [SluiceboxError, 'INTERNAL'],
  internal: [SluiceboxError, 'INTERNAL'],
  queue_full: [SluiceboxError, 'INTERNAL'],
  image_not_found: [ImageError, 'IMAGE_NOT_FOUND'],
  image_exists: [ImageError, 'IMAGE_EXISTS'],
  image_format: [ImageError, 'IMAGE_FORMAT'],
  image_corrupt: [ImageError, 'IMAGE_CORRUPT'],
  image_locked: [ImageError, 'IMAGE_LOCKED'],
  image_chain: [ImageError, 'IMAGE_CHAIN'],
  image_too_small: [ImageError, 'IMAGE_TOO_SMALL'],
  path_refused: [SluiceboxError, 'PERMISSION'],
  box_not_found: [BoxNotFoundError, 'BOX_NOT_FOUND'],
  box_exists: [SluiceboxError, 'BOX_EXISTS'],
  box_state: [SluiceboxError, 'BOX_STATE'],
  box_start: [BoxStartError, 'BOX_START'],
  box_lost: [BoxLostError, 'BOX_LOST'],
  in_use: [SluiceboxError, 'IN_USE'],
  home_incompatible: [SluiceboxError, 'HOME_INCOMPATIBLE'],
  exec_spawn: [ExecSpawnError, 'EXEC_SPAWN'],
  exec_lost: [ExecLostError, 'EXEC_LOST'],
  exec_exists: [SluiceboxError, 'EXEC_EXISTS'],
  stdin_closed: [SluiceboxError, 'STDIN_CLOSED'],
}

test('I31: the table of the SDK, this table and the native codes have the same names, each number once', () => {
  const native = nativeCodes.map(([, name]) => name).sort()
  expect(Object.keys(errorFactories).sort()).toEqual(native)
  expect(Object.keys(expected).sort()).toEqual(native)
  expect(names.size).toBe(nativeCodes.length)
})

test.each([...nativeCodes])(
  'I31: native code %i, %s, becomes one class and one code, with all that it carries',
  (code, name) => {
    const [kind, publicCode] = expected[name] as (typeof expected)[string]
    const native = { code, message: 'clusterSize: it is so', path: '/p', errno: 'EIO', hint: 'do that', offset: 7 }
    const error = fromNative(names, native, 'images.check')
    expect(Object.getPrototypeOf(error)).toBe(kind.prototype)
    expect(error).toMatchObject({ code: publicCode, op: 'images.check', name: kind.name })
    expect(error.message).toMatch(/it is so|images.check/)
    if (kind === ImageError) expect(error).toMatchObject({ path: '/p', errno: 'EIO', hint: 'do that', offset: 7 })
    if (kind === InvalidArgumentError)
      expect(error).toMatchObject({ argument: 'clusterSize', message: 'clusterSize: it is so' })
  },
)

test('I31: a native code without a class is INTERNAL and names itself, not a guess', () => {
  const error = fromNative(names, { code: 12345, message: 'it broke' }, 'images.info')
  expect(error).toMatchObject({
    code: 'INTERNAL',
    op: 'images.info',
    message: expect.stringMatching(/it broke.*12345/),
  })
})

test.each([
  ['gives frames', { stack: [{}] }],
  ['gives nothing', { stack: undefined }],
  [
    'throws',
    {
      get stack(): string {
        throw new Error('not today')
      },
    },
  ],
])('an error keeps its own stack when the formatter of the program %s', (_what, trace) => {
  const error = new RuntimeClosedError('x', true)
  const { stack } = error
  expect(withCallersStack(error, trace).stack).toBe(stack)
})

test('is() knows errors of another copy of the package and another realm, and nothing else', () => {
  const foreign = runInNewContext(`
    class Other extends Error { code = 'IO' }
    Object.defineProperty(Other.prototype, Symbol.for('sluicebox.error'), { value: true })
    new Other('from afar')
  `)
  expect(foreign instanceof Error).toBe(false)
  expect(SluiceboxError.is(foreign)).toBe(true)
  expect(SluiceboxError.is(new RuntimeClosedError('x', true))).toBe(true)
  for (const other of [
    undefined,
    null,
    0,
    '',
    'IO',
    {},
    new Error('IO'),
    { code: 'IO' },
    Symbol.for('sluicebox.error'),
  ])
    expect(SluiceboxError.is(other)).toBe(false)
})

test('toJSON tells name, message, code and details, and JSON can carry it', () => {
  const cause = new Error('below')
  const error = new ImageError('IMAGE_CORRUPT', 'bad', { op: 'images.info', path: '/p', offset: 5, cause })
  expect(JSON.parse(JSON.stringify(error))).toEqual({
    name: 'ImageError',
    message: 'bad',
    code: 'IMAGE_CORRUPT',
    op: 'images.info',
    retryable: false,
    path: '/p',
    offset: 5,
  })
  expect(error.cause).toBe(cause)
})

test('an error of an execution carries what is known of it, and its cause in words', () => {
  const result = { exitCode: 3, stdout: 'so far' } as RunResult
  const details = { op: 'box.run', boxId: 'b', result, cause: new Error('below') }
  const error = new ExecFailedError('it failed', details)
  expect(error).toMatchObject({ code: 'EXEC_FAILED', boxId: 'b', shortMessage: 'it failed', originalMessage: 'below' })
  expect(error.result).toBe(result)
  expect(new ExecTimeoutError('late', { ...details, timeoutMs: 5 })).toMatchObject({
    code: 'EXEC_TIMEOUT',
    timeoutMs: 5,
  })
  const overflow = new ExecOverflowError('much', { ...details, maxBuffer: 7, stream: 'stderr' })
  expect(overflow).toMatchObject({ code: 'EXEC_OVERFLOW', maxBuffer: 7, stream: 'stderr' })
  for (const each of [error, overflow]) expect(each).toBeInstanceOf(ExecError)
})

test('a box that did not start tells how far it came', () => {
  const native = { code: 43, message: 'no', phase: 'agent' as const, consoleTail: 'oops' }
  expect(fromNative(names, native, 'create')).toMatchObject({ code: 'BOX_START', phase: 'agent', consoleTail: 'oops' })
})

test('retryable is true only for what certainly did not start', () => {
  expect(new RuntimeClosedError('x', false).retryable).toBe(true)
  expect(new RuntimeClosedError('x', true).retryable).toBe(false)
  expect(new InvalidArgumentError('x', 'y', 'z').retryable).toBe(true)
  expect(new SluiceboxError('IO', 'x', { op: 'y' }).retryable).toBe(false)
})

test('each class shows its own name in String() and in the stack', () => {
  for (const error of [
    new SluiceboxError('IO', 'm', { op: 'x' }),
    new ImageError('IMAGE_FORMAT', 'm', { op: 'x' }),
    new InvalidArgumentError('a', 'm', 'x'),
    new RuntimeClosedError('x', true),
  ]) {
    expect(String(error)).toBe(`${error.constructor.name}: ${error.message}`)
    expect(Object.keys(error)).not.toContain('name')
    expect(withCallersStack(error, { stack: 'Error\n    at here' }).stack).toBe(`${String(error)}\n    at here`)
    expect(withCallersStack(error, { stack: 'Error' }).stack).toBe(`${String(error)}\n    at here`)
  }
})

test('the stack of a native error, and of one cut short by close, begins at the public call', async () => {
  const runtime = openRuntime()
  const folder = makeFolder()
  const callSite = (): Promise<unknown> => runtime.images.info(folder('none'))
  const missing = (await rejection(callSite())) as Error
  expect(missing.stack?.split('\n')[0]).toBe(`ImageError: ${missing.message}`)
  expect(missing.stack?.split('\n')[1]).toContain('callSite')
  const gate = newGate()
  const cutShort = (): Promise<unknown> => runWork(runtime, { gate })
  const work = cutShort()
  void runtime.close()
  const closed = (await rejection(work)) as Error
  expect(closed.stack?.split('\n')[1]).toContain('cutShort')
})
