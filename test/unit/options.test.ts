// Every option of every public method against values that it does not take: refused at the door, by name, before anything runs.
import { readdirSync } from 'node:fs'
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { InvalidArgumentError, Runtime, SluiceboxError } from '../../lib/index.js'
import { runModule } from '../support/child.js'
import { makeFolder } from '../support/folder.js'
import { openRuntime, rejection } from '../support/producer.js'

type Bad = readonly unknown[]

const badPath: Bad = [null, 0, true, {}, [], Symbol('s'), () => {}, '', 'a\0b']
const badFlag: Bad = [null, 0, 1, 'true', '', {}, []]
const badFunction: Bad = [null, 0, 'text', {}, []]
const badSignal: Bad = [null, 0, 'text', {}, { aborted: false, addEventListener() {} }, () => {}, new EventTarget()]
const badObject: Bad = [null, 0, true, 'text', [], () => {}, Promise.resolve({}), new Map(), new Set(), new Date(0)]
const badSize: Bad = [null, Number.NaN, -1, 0.5, true, {}, [], '', 'G', '-1', '1e3', '10Gb', '1X', '0.3', ' 1', '0x10']
const badInteger: Bad = [null, Number.NaN, -1, 1.5, Number.POSITIVE_INFINITY, 2 ** 53, '4', true, {}, 1n]
const badChoice: Bad = [null, 0, 3, true, '', 'Off', 'nope', {}, []]
const badName: Bad = [null, 0, '', 'a/b', '..', 'a..b', '-a', '.a', 'a\0b', 'a\nb', 'x'.repeat(129), 'é'.repeat(65)]
const badEnv: Bad = [null, 0, 'text', [], { '': 'x' }, { 'a=b': 'x' }, { 'a\0b': 'x' }]
const badUser: Bad = [null, '', 'a\0b', -1, 1.5, 2 ** 32, true, []]
const progressive = { signal: badSignal, onProgress: badFunction }

interface Method {
  /** Calls it with these options. */
  call(runtime: Runtime, options: unknown): Promise<unknown>
  /** Options that it takes; one is replaced at a time. */
  valid: Record<string, unknown>
  options: Record<string, Bad | Record<string, Bad>>
}

const path = '/nonexistent/sluicebox'
const methods: Record<string, Method> = {
  'new Runtime': {
    call: async (_, options) => new Runtime(options as never).close(),
    valid: {},
    options: {
      workers: [...badInteger, 0, 65],
      home: badPath,
      queue: { maxEvents: [...badInteger, 7, 2 ** 16 + 1], maxBytes: [...badInteger, 65535] },
      concurrency: { images: [...badInteger, 0, 1025], boots: [...badInteger, 0, 1025] },
      isolation: badChoice,
      allowPaths: [null, 0, 'text', {}, [0], ['/', ''], ['a\0b'], new Array(1)],
      templates: [null, 0, '', true, {}, 'a\0b'],
    },
  },
  'images.create': {
    call: ({ images }, options) => images.create(path, options as never),
    valid: { format: 'qcow2', size: '1M' },
    options: {
      overwrite: badFlag,
      format: [...badChoice, undefined],
      size: badSize,
      backing: { path: badPath, format: badChoice },
      clusterSize: badSize,
      compat: [...badChoice, 1.1],
      refcountBits: [null, 0, 3, 128, '16', Number.NaN, {}],
      lazyRefcounts: badFlag,
      preallocation: badChoice,
      ...progressive,
    },
  },
  'images.create of raw': {
    call: ({ images }, options) => images.create(path, options as never),
    valid: { format: 'raw', size: '1M' },
    options: { overwrite: badFlag, size: badSize, preallocation: [...badChoice, 'metadata'], ...progressive },
  },
  'images.info': {
    call: ({ images }, options) => images.info(path, options as never),
    valid: {},
    options: { shared: badFlag, chain: badFlag, format: badChoice, signal: badSignal },
  },
  'images.check': {
    call: ({ images }, options) => images.check(path, options as never),
    valid: {},
    options: { repair: badChoice, format: badChoice, ...progressive },
  },
  'images.rebase': {
    call: ({ images }, options) => images.rebase(path, options as never),
    valid: { backing: null },
    options: {
      dryRun: badFlag,
      backing: [undefined, 0, true, {}, [], 'a\0b'],
      backingFormat: badChoice,
      format: badChoice,
      mode: badChoice,
      ...progressive,
    },
  },
  'images.commit': {
    call: ({ images }, options) => images.commit(path, options as never),
    valid: {},
    options: { into: badPath, keepOverlay: badFlag, format: badChoice, ...progressive },
  },
  'images.resize': {
    call: ({ images }, options) => images.resize(path, '1M', options as never),
    valid: {},
    options: { shrink: badFlag, preallocation: badChoice, format: badChoice, ...progressive },
  },
  rebase: {
    call: (runtime, options) => runtime.rebase(path, options as never),
    valid: { backing: null },
    options: { dryRun: badFlag, backing: [undefined, 0, 'a\0b'], mode: badChoice, ...progressive },
  },
  create: {
    call: (runtime, options) => runtime.create(options as never),
    valid: { name: 'web' },
    options: {
      isolation: badChoice,
      rootfs: [null, 0, 'guest', []],
      name: badName,
      ifExists: badChoice,
      ephemeral: badFlag,
      disks: [[], {}],
      idleTimeoutMs: [...badInteger, 0],
      onIdle: badChoice,
      ttlMs: [...badInteger, 0],
      start: badFlag,
      // Infinity is no limit.
      vcpus: [...badInteger.filter((value) => value !== Number.POSITIVE_INFINITY), 0],
      memory: [...badSize.filter((value) => value !== Number.POSITIVE_INFINITY), 0],
      storage: [...badSize, 0],
      maxProcesses: [...badInteger.filter((value) => value !== Number.POSITIVE_INFINITY), 0],
      env: badEnv,
      cwd: [null, 0, '', 'relative', '/a\0b'],
      user: badUser,
      labels: [null, 0, 'text', [], { '': 'x' }],
      bootTimeoutMs: [...badInteger, 0],
      ...progressive,
    },
  },
  list: {
    call: (runtime, options) => runtime.list(options as never),
    valid: {},
    options: {
      state: [null, 0, 'gone', ['running', 'gone']],
      labels: [null, 0, []],
      name: [null, 0, 'a\0b'],
      signal: badSignal,
    },
  },
  get: { call: (runtime, options) => runtime.get('web', options as never), valid: {}, options: { signal: badSignal } },
  has: { call: (runtime, options) => runtime.has('web', options as never), valid: {}, options: { signal: badSignal } },
  remove: {
    call: (runtime, options) => runtime.remove('web', options as never),
    valid: {},
    options: { force: badFlag, signal: badSignal },
  },
  doctor: { call: (runtime, options) => runtime.doctor(options as never), valid: {}, options: { signal: badSignal } },
  close: {
    call: (runtime, options) => runtime.close(options as never),
    valid: {},
    options: { timeoutMs: [...badInteger, 2 ** 31] },
  },
}

interface Case {
  readonly key: string
  readonly value: unknown
  readonly options: object
}

function casesOf({ valid, options }: Method): Case[] {
  return Object.entries(options).flatMap(([key, bad]): Case[] => {
    if (Array.isArray(bad)) return bad.map((value) => ({ key, value, options: { ...valid, [key]: value } }))
    const whole = key === 'backing' ? { path: '/base', format: 'raw' } : {}
    const inner = Object.entries(bad as Record<string, Bad>).flatMap(([name, values]) =>
      values.map((value) => ({
        key: `${key}.${name}`,
        value,
        options: { ...valid, [key]: { ...whole, [name]: value } },
      })),
    )
    return [...inner, ...badObject.map((value) => ({ key, value, options: { ...valid, [key]: value } }))]
  })
}

test.each(Object.keys(methods))(
  'H30, S27: %s refuses each bad value of each option by its name, and starts nothing',
  async (name) => {
    const runtime = openRuntime()
    const method = methods[name] as Method
    for (const { key, value, options } of casesOf(method)) {
      const shown = `${name} ${key} = ${inspect(value)}`
      const error = await rejection(method.call(runtime, options)).catch((accepted) => accepted)
      expect(error, shown).toBeInstanceOf(InvalidArgumentError)
      expect(error, shown).toMatchObject({ code: 'INVALID_ARGUMENT', op: name.replace(' of raw', ''), retryable: true })
      expect((error as InvalidArgumentError).argument.replace(/\[\d+\]$/, ''), shown).toBe(key)
      expect((error as Error).message.startsWith(key), shown).toBe(true)
    }
    expect(runtime.stats().handles).toEqual({ live: 0, claimed: 0, finalized: 0 })
  },
)

test.each(Object.keys(methods))(
  '%s refuses options that are no object, and an unknown key with a suggestion',
  async (name) => {
    const runtime = openRuntime()
    const { call, valid, options } = methods[name] as Method
    for (const value of badObject)
      expect(await rejection(call(runtime, value)), inspect(value)).toMatchObject({
        code: 'INVALID_ARGUMENT',
        argument: 'options',
      })
    const forgotten = Promise.resolve(valid)
    expect(await rejection(call(runtime, forgotten))).toMatchObject({ message: expect.stringContaining('await') })
    const known = Object.keys(options)[0] as string
    const swapped = `${known[1]}${known[0]}${known.slice(2)}`
    for (const typo of [known.toUpperCase(), `${known}s`, known.slice(0, -1), swapped]) {
      const error = (await rejection(call(runtime, { ...valid, [typo]: undefined }))) as Error
      expect(error, typo).toMatchObject({ code: 'INVALID_ARGUMENT', argument: typo })
      expect(error.message).toContain(`did you mean "${known}"`)
    }
    const error = (await rejection(call(runtime, { ...valid, zzzz: 1 }))) as Error
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', argument: 'zzzz' })
    for (const key of Object.keys(options)) expect(error.message).toContain(key)
  },
)

test.each([
  ['create', { format: 'raw', size: 1 }],
  ['info'],
  ['check'],
  ['rebase', { backing: null }],
  ['commit'],
  ['resize', '1M'],
] as const)('S27: images.%s refuses each bad path, NUL bytes included', async (method, second?: unknown) => {
  const { images } = openRuntime()
  for (const bad of [undefined, ...badPath]) {
    const error = await rejection(
      (images[method] as (...args: unknown[]) => Promise<unknown>).call(images, bad, second),
    )
    expect(error, inspect(bad)).toMatchObject({ code: 'INVALID_ARGUMENT', argument: 'path', op: `images.${method}` })
  }
})

test.each([
  [{ rootfs: {} }, 'rootfs.directory'],
  [{ rootfs: { directory: 'a\0b' } }, 'rootfs.directory'],
  [{ env: { A: 1 } }, 'env.A'],
  [{ env: { A: undefined } }, 'env.A'],
  [{ env: { A: 'x\0' } }, 'env.A'],
  [{ labels: { a: 1 } }, 'labels.a'],
  [{ user: {} }, 'user.uid'],
  [{ user: { uid: 0, gid: -1 } }, 'user.gid'],
  [{ ephemeral: false }, 'ephemeral'],
  [{ ifExists: 'reuse' }, 'ifExists'],
])('S27, H30: create(%j) is refused by the name of what is wrong in it', async (options, argument) => {
  expect(await rejection(openRuntime().create(options as never))).toMatchObject({ code: 'INVALID_ARGUMENT', argument })
})

test('what is not built is UNSUPPORTED: pausing what is no machine', async () => {
  const options = { idleTimeoutMs: 1000, onIdle: 'pause' } as const
  expect(await rejection(openRuntime().create(options))).toMatchObject({ code: 'UNSUPPORTED' })
})

test.each([[null], ['disk'], [7]])('a machine’s root that is none is refused: %j', async (rootfs) => {
  const options = { isolation: 'vm', rootfs } as never
  expect(await rejection(openRuntime().create(options))).toMatchObject({
    code: 'INVALID_ARGUMENT',
    argument: 'rootfs',
  })
})

test('H27: a closed runtime has no boxes to give', async () => {
  const runtime = openRuntime()
  await runtime.close()
  for (const call of [runtime.create(), runtime.get('a'), runtime.has('a'), runtime.list(), runtime.remove('a')])
    expect(await rejection(call)).toMatchObject({ code: 'RUNTIME_CLOSED' })
})

test('H30: a getter that throws is the caller’s own error, and the runtime works on', async () => {
  const runtime = openRuntime()
  const thrown = new Error('mine')
  const throwing = {
    get chain(): boolean {
      throw thrown
    },
  }
  expect(await rejection(runtime.images.info(path, throwing))).toBe(thrown)
  expect(SluiceboxError.is(await rejection(runtime.images.info(path)))).toBe(true)
})

test.each([2 ** 53, Number.MAX_VALUE, '9007199254740992', '8192T'])(
  'I10: a size of %s is UNSUPPORTED',
  async (size) => {
    const error = await rejection(openRuntime().images.create(path, { format: 'raw', size: size as number }))
    expect(error).toMatchObject({ code: 'UNSUPPORTED', op: 'images.create', message: expect.stringMatching(/^size: /) })
  },
)

test('S27: images.resize refuses each bad size, a missing one included', async () => {
  const { images } = openRuntime()
  for (const size of [undefined, ...badSize])
    expect(await rejection(images.resize(path, size as never)), inspect(size)).toMatchObject({
      code: 'INVALID_ARGUMENT',
      argument: 'size',
    })
})

test('I19: a rebase without a backing key is INVALID_ARGUMENT, not a detach', async () => {
  const runtime = openRuntime()
  for (const options of [{}, { backing: undefined }, { mode: 'unsafe' }, undefined])
    expect(await rejection(runtime.rebase(path, options as never))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      argument: 'backing',
    })
})

const sizes: [string | number, number][] = [
  [0, 0],
  [512, 512],
  ['512', 512],
  ['1K', 1024],
  ['1.5K', 1536],
  ['2M', 2 ** 21],
  ['1G', 2 ** 30],
  ['1T', 2 ** 40],
]
test.each(sizes)('a size of %s is %i bytes', async (size, bytes) => {
  const { images } = openRuntime()
  expect(await images.create(makeFolder()('raw'), { format: 'raw', size: size as number })).toMatchObject({
    virtualBytes: bytes,
  })
})

test('a runtime refused for its options leaves no thread behind', () => {
  const before = readdirSync('/proc/self/task').length
  for (const { options } of casesOf(methods['new Runtime'] as Method))
    expect(() => new Runtime(options as never)).toThrow(InvalidArgumentError)
  expect(readdirSync('/proc/self/task').length).toBeLessThanOrEqual(before)
})

test('a relative path in a working directory that is gone is INVALID_ARGUMENT and says so', async () => {
  const ended = await runModule(
    `
    import { rmdirSync } from 'node:fs'
    process.chdir(process.argv[1])
    rmdirSync(process.argv[1])
    const runtime = new Runtime({ home: '/tmp/sluicebox-home' })
    console.log(await runtime.images.info('image').catch(({ code, argument }) => code + ' ' + argument))
    console.log(await runtime.images.info('/nonexistent').catch(({ code }) => code))
    for (const options of [{ home: 'here' }, { home: '/', allowPaths: ['here'] }])
      try { new Runtime(options) } catch ({ code, argument }) { console.log(code, argument) }
    await runtime.close()
  `,
    { args: [makeFolder()()] },
  )
  const expected = ['path', 'home', 'allowPaths[0]'].map((argument) => `INVALID_ARGUMENT ${argument}\n`)
  expected.splice(1, 0, 'IMAGE_NOT_FOUND\n')
  expect(ended).toMatchObject({ code: 0, stdout: expected.join(''), stderr: '' })
})

test('a user without a home directory is told to name one', async ({ skip }) => {
  if (process.getuid?.() !== 0) return skip('not root: cannot become a user that has no entry')
  const ended = await runModule(`
    process.setuid(54321)
    for (const name of ['HOME', 'XDG_DATA_HOME', 'SLUICEBOX_HOME']) delete process.env[name]
    try { new Runtime() } catch ({ code, argument, hint }) { console.log(code, argument, hint) }
    await new Runtime({ home: '/tmp/sluicebox-home' }).close()
  `)
  const stdout = 'INVALID_ARGUMENT home Pass home, or set SLUICEBOX_HOME.\n'
  expect(ended).toMatchObject({ code: 0, stdout, stderr: '' })
})
