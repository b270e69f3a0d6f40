// Executions, how they begin: arguments, environment, directory and user as asked for, and refusals that leave nothing.
import { describe, expect, test } from 'vitest'
import { ExecSpawnError } from '../../../lib/index.js'
import { boxOver, eventually, runtimeOver, soon, transports } from '../../support/boxes.js'
import { BOOT, ORDERLY } from '../../support/machine.js'
import { rejection } from '../../support/producer.js'

describe.each(transports)('%s', (transport) => {
  test('X8: without a terminal, test -t fails on 0, 1 and 2, the streams are apart, and no CR is added', async () => {
    const box = await boxOver(transport)
    const script = 'for fd in 0 1 2; do if [ -t $fd ]; then echo tty; fi; done; echo out; echo err >&2'
    expect(await box.shell(script, { stripFinalNewline: false })).toMatchObject({ stdout: 'out\n', stderr: 'err\n' })
  })

  test.each([0, 1, 2, 126, 127, 128, 137, 255])('X17: exit code %i arrives unchanged', async (code) => {
    const box = await boxOver(transport)
    const result = await box.run(['sh', '-c', `exit ${code}`])
    expect(result).toMatchObject({ exitCode: code, ok: code === 0 })
    expect(result.signal).toBe(undefined)
    expect(result.signalDescription).toBe(undefined)
  })

  test.each([
    ['KILL', 'SIGKILL'],
    ['TERM', 'SIGTERM'],
    ['SEGV', 'SIGSEGV'],
    ['40', 'SIGRTMIN+6'],
  ])('X18: death by %s has no exit code, and is told by name and description', async (name, signal) => {
    const box = await boxOver(transport)
    const result = await box.run(['sh', '-c', `kill -${name} $$; sleep 1000`])
    expect(result).toMatchObject({ signal, ok: false, signalDescription: expect.stringMatching(/./) })
    expect(result.exitCode).toBe(undefined)
  })

  test.each([
    ['a missing file', ['/nonexistent/program'], {}, 'ENOENT'],
    ['a missing file in PATH', ['no-such-program'], {}, 'ENOENT'],
    ['a directory', ['/usr'], {}, 'EACCES'],
    ['a file without x-bit', ['/etc/passwd'], {}, 'EACCES'],
    ['a missing cwd', ['true'], { cwd: '/nonexistent/cwd' }, 'ENOENT'],
    ['a cwd that is a file', ['true'], { cwd: '/etc/passwd' }, 'ENOTDIR'],
  ] as const)('X19, X20, X21: %s is EXEC_SPAWN, and leaves no execution', async (_, argv, options, errno) => {
    const box = await boxOver(transport)
    const error = (await rejection(box.exec(argv, options))) as ExecSpawnError
    expect(error).toBeInstanceOf(ExecSpawnError)
    expect(error).toMatchObject({ code: 'EXEC_SPAWN', errno, op: 'box.exec', boxId: box.id, result: { argv } })
    expect(error.result.exitCode).toBe(undefined)
    if ('cwd' in options) expect(error.message).toContain(options.cwd)
    else expect(error.message).toContain(argv[0])
    expect(await box.executions()).toEqual([])
    expect((await box.run(['true'])).ok).toBe(true)
  })

  test('X20: a missing interpreter is ENOENT, a wrong format ENOEXEC', async () => {
    const box = await boxOver(transport)
    await box.shell(
      `printf '#!/nonexistent/interpreter\\n' > /tmp/script; printf 'no program' > /tmp/text; chmod +x /tmp/script /tmp/text`,
      { check: true },
    )
    expect(await rejection(box.run(['/tmp/script']))).toMatchObject({ code: 'EXEC_SPAWN', errno: 'ENOENT' })
    expect(await rejection(box.run(['/tmp/text']))).toMatchObject({ code: 'EXEC_SPAWN', errno: 'ENOEXEC' })
  })

  test('X22: argv that is empty, has a NUL or no strings spawns nothing', async () => {
    const box = await boxOver(transport)
    for (const argv of [[], [''], ['a\0b'], ['true', 'a\0'], [1], ['true', null], 'true', undefined])
      expect(await rejection(box.exec(argv as never))).toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect(await box.executions()).toEqual([])
  })

  test('X23: argv arrives verbatim, through no shell', async () => {
    const box = await boxOver(transport)
    const args = ['a b', "it's", '"', '$(x)', '`x`', '\n', '', '-n', '--', '\\', '*', '𝄞é', '\x1b[31m', ' ']
    const { stdout } = await box.run(['sh', '-c', 'for each; do printf "%s\\0" "$each"; done', 'sh', ...args])
    expect(stdout.split('\0').slice(0, -1)).toEqual(args)
  })

  test('X24: 1 MB of arguments works, and one past the kernel’s limit is E2BIG and breaks nothing', async () => {
    const box = await boxOver(transport)
    const args = Array.from({ length: 10 }, () => 'x'.repeat(100_000))
    const { stdout } = await box.run(['sh', '-c', 'echo $#; printf %s "$1" | wc -c', 'sh', ...args])
    expect(stdout).toBe('10\n100000')
    expect(await rejection(box.run(['true', 'x'.repeat(200_000)]))).toMatchObject({
      code: 'EXEC_SPAWN',
      errno: 'E2BIG',
    })
    expect((await box.run(['true'])).ok).toBe(true)
  })

  test('X25: the environment is the box’s plus the call’s, nothing of the host, and PATH of it finds the program', async () => {
    process.env.SLUICEBOX_TEST_LEAK = 'leak'
    const box = await boxOver(transport, { env: { A: 'box', B: 'box' } })
    const { stdout } = await box.run(['env'], { env: { B: 'call', C: 'é', HOME: undefined } })
    expect(stdout.split('\n').sort()).toEqual([
      'A=box',
      'B=call',
      'C=é',
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ])
    await box.shell('mkdir /tmp/bin; printf "#!/bin/sh\\necho mine\\n" > /tmp/bin/mine; chmod +x /tmp/bin/mine', {
      check: true,
    })
    expect((await box.run(['mine'], { env: { PATH: '/tmp/bin' } })).stdout).toBe('mine')
    expect(await rejection(box.run(['mine']))).toMatchObject({ errno: 'ENOENT' })
    expect(await rejection(box.run(['env'], { env: { 'A=B': 'x' } }))).toMatchObject({ code: 'INVALID_ARGUMENT' })
    delete process.env.SLUICEBOX_TEST_LEAK
  })

  test('the cwd of the call, of the box, and a relative one', async () => {
    const box = await boxOver(transport, { cwd: '/usr' })
    expect((await box.run(['pwd'])).stdout).toBe('/usr')
    expect(await box.run(['pwd'], { cwd: 'bin/..' })).toMatchObject({ cwd: '/usr/bin/..' })
    expect((await box.run(['pwd'], { cwd: '/' })).stdout).toBe('/')
  })

  test('X26: an unknown user is typed, and leaves nothing', async () => {
    const box = await boxOver(transport)
    const error = await rejection(box.run(['id'], { user: 'no-such-user' }))
    expect(['EXEC_SPAWN', 'UNSUPPORTED']).toContain((error as { code: string }).code)
    expect(await box.executions()).toEqual([])
  })

  // A machine has all the ids that there are, whoever owns it.
  const oneIdOnly = process.getuid?.() !== 0 && transport !== 'machine'
  test.skipIf(oneIdOnly)('X26: a user by name, uid, or both ids is who it runs as', async () => {
    const box = await boxOver(transport)
    expect((await box.run(['id', '-u'], { user: 1234 })).stdout).toBe('1234')
    expect((await box.run(['id', '-u'], { user: { uid: 1234, gid: 4321 } })).stdout).toBe('1234')
    expect((await box.run(['id', '-g'], { user: { uid: 1234, gid: 4321 } })).stdout).toBe('4321')
    expect((await box.run(['id', '-un'], { user: 'root' })).stdout).toBe('root')
    const groups = (await box.shell(`awk -F: '$1 == "nobody" { print $3 }' /etc/passwd`)).stdout
    if (groups) expect((await box.run(['id', '-u'], { user: 'nobody' })).stdout).toBe(groups)
  })

  test('X27: default dispositions, empty mask, umask 022, a session of its own; yes | head -1 ends', async () => {
    const box = await boxOver(transport)
    const { stdout } = await box.shell(
      'umask; grep -E "^Sig(Blk|Ign)" /proc/self/status; echo $$; cut -d" " -f6 /proc/$$/stat',
    )
    const [umask, blocked, ignored, pid, session] = stdout.split('\n')
    expect(umask).toBe('0022')
    expect(blocked).toMatch(/SigBlk:\s*0+$/)
    expect(ignored).toMatch(/SigIgn:\s*0+$/)
    expect(session).toBe(pid)
    expect((await box.shell('yes | head -1')).stdout).toBe('y')
  })

  // An emulated processor takes its time.
  const [crowd, few] = transport === 'machine' ? [20, 20] : [100, 50]
  test(`X38: ${crowd} concurrent executions each have their own output, code and pid`, async () => {
    const box = await boxOver(transport)
    const results = await Promise.all(
      Array.from({ length: crowd }, (_, n) => box.run(['sh', '-c', `echo ${n} $$; exit ${n}`])),
    )
    for (const [n, { stdout, exitCode, pid }] of results.entries())
      expect({ stdout, exitCode }).toEqual({ stdout: `${n} ${pid}`, exitCode: n })
    expect(new Set(results.map(({ pid }) => pid)).size).toBe(crowd)
  })

  test('X38: so do 5 executions in each of many boxes', async () => {
    const runtime = runtimeOver(transport)
    const count = transport === 'machine' ? 3 : 20
    const boxes = await Promise.all(Array.from({ length: count }, () => runtime.create()))
    const all = await Promise.all(
      boxes.flatMap((box, b) => Array.from({ length: 5 }, (_, n) => box.run(['echo', `${b}.${n}`]))),
    )
    expect(all.map(({ stdout }) => stdout)).toEqual(
      Array.from({ length: 5 * count }, (_, n) => `${Math.floor(n / 5)}.${n % 5}`),
    )
  })

  test('X39: a live id is EXEC_EXISTS for a second execution, which spawns nothing; after the end it is free', async () => {
    const box = await boxOver(transport)
    const [first, second] = [box.exec(['sleep', '1000'], { id: 'mine' }), box.exec(['touch', '/tmp/b'], { id: 'mine' })]
    expect(await rejection(second)).toMatchObject({ code: 'EXEC_EXISTS' })
    const sleep = await first
    expect(sleep.id).toBe('mine')
    expect(await rejection(box.run(['true'], { id: 'mine' }))).toMatchObject({ code: 'EXEC_EXISTS' })
    await sleep.kill('SIGKILL')
    await sleep.wait()
    expect((await box.run(['ls', '/tmp/b'], { id: 'mine' })).exitCode).not.toBe(0)
  })

  test('X42: a kill in the moments around spawn is never lost', async () => {
    const box = await boxOver(transport)
    const all = await Promise.all(
      Array.from({ length: few }, async () => {
        const sleep = await box.exec(['sleep', '1000'])
        expect(await sleep.kill('SIGKILL')).toBe(true)
        return soon(sleep.wait(), 'its end')
      }),
    )
    for (const exit of all) expect(exit.signal).toBe('SIGKILL')
  })

  test('H7, X42: an exec aborted at any moment leaves no process and is in no list', async () => {
    const box = await boxOver(transport)
    const reason = new Error('aborted')
    for (let round = 0; round < 30; round++) {
      const controller = new AbortController()
      const execution = box.exec(['sleep', '4321'], { signal: controller.signal })
      for (let turns = round % 6; turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve))
      controller.abort(reason)
      const outcome = await execution.then(
        (spawned) => soon(spawned.wait(), 'its end').then(({ signal }) => signal),
        (error) => error,
      )
      // What an emulated processor has not got to in five seconds is ended by force.
      expect([reason, 'SIGTERM', ...(transport === 'machine' ? ['SIGKILL'] : [])]).toContain(outcome)
    }
    await eventually(
      () => box.shell('grep -sl "432[1]" /proc/[0-9]*/cmdline | wc -l'),
      ({ stdout }) => stdout === '0',
      'no such process',
    )
    expect(await box.executions()).toEqual([])
  })

  test('X57: exec in a box that does not run is BOX_STATE naming the state', async () => {
    const box = await runtimeOver(transport).create({ name: 'still', start: false })
    const refused = (await rejection(box.run(['true']))) as Error
    expect(refused).toMatchObject({ code: 'BOX_STATE', message: expect.stringContaining('created') })
    await box.start(BOOT)
    expect((await box.run(['true'])).ok).toBe(true)
    await box.stop(ORDERLY)
    expect(await rejection(box.exec(['true']))).toMatchObject({
      code: 'BOX_STATE',
      message: expect.stringContaining('stopped'),
    })
  })

  test('X66: a process of another uid can open its own /dev/stdout and /dev/stderr', async ({ skip }) => {
    if (oneIdOnly) return skip('one id only')
    const box = await boxOver(transport)
    const script = 'echo out > /dev/stdout; echo err > /dev/stderr'
    expect(await box.shell(script, { user: 1234 })).toMatchObject({ exitCode: 0, stdout: 'out', stderr: 'err' })
  })
})
