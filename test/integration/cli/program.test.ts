// The program `sluicebox` itself: help, version, rebase, the path policy, signals.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { sluicebox } from '../../support/cli.js'
import { makeFolder } from '../../support/folder.js'
import { program, qemuImg, qemuInfo, qemuIo } from '../../support/qemu.js'

test('help and version are told; anything else that is no command exits 1 and says where to read', async () => {
  const cwd = makeFolder()('')
  const help = await sluicebox(cwd, '--help')
  expect(help).toMatchObject({ code: 0, stderr: '' })
  for (const word of ['rebase -b BACKING', 'create [-q]', '--allow-path DIR', 'SLUICEBOX_ALLOW_PATHS'])
    expect(help.stdout).toContain(word)
  expect((await sluicebox(cwd, 'image', 'info', '--help')).stdout).toContain('[--backing-chain]')
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))
  expect((await sluicebox(cwd, '--version')).stdout).toBe(`sluicebox ${version}\n`)
  expect(await sluicebox(cwd)).toMatchObject({ code: 1, stdout: '', stderr: help.stdout })
  for (const args of [['nope'], ['image'], ['image', 'nope'], ['rebase', 'a'], ['rebase', '--nope', 'a']]) {
    const { code, stdout, stderr } = await sluicebox(cwd, ...args)
    expect({ args, code, stdout }).toEqual({ args, code: 1, stdout: '' })
    expect(stderr).toMatch(/^sluicebox: .+\nTry 'sluicebox --help' for more information\n$/)
  }
})

test('sluicebox rebase says what it did, for people, as JSON, or nothing', async () => {
  const folder = makeFolder()
  const cwd = folder('')
  for (const name of ['one', 'two']) await qemuImg('create', '-q', '-f', 'qcow2', folder(name), '1M')
  await qemuIo(folder('one'), ['write -P 1 0 128k'])
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'one', '-F', 'qcow2', folder('top'))
  const json = await sluicebox(cwd, 'rebase', '-b', 'two', '-F', 'qcow2', '--output', 'json', 'top')
  expect(json).toMatchObject({ code: 0, stderr: '' })
  expect(JSON.parse(json.stdout)).toEqual({
    overlay: 'top',
    overlay_format: 'qcow2',
    mode: 'safe',
    clusters_copied: 2,
    bytes_copied: 131072,
    new_backing: 'two',
  })
  expect(await sluicebox(cwd, 'rebase', '-b', 'two', 'top')).toEqual({
    code: 0,
    stdout: 'Image rebased.\n',
    stderr: '',
  })
  expect(await sluicebox(cwd, 'rebase', '-q', '-u', '-b', 'one', '-F', 'qcow2', 'top')).toEqual({
    code: 0,
    stdout: '',
    stderr: '',
  })
  expect(await qemuInfo(folder('top'))).toMatchObject({ 'backing-filename': 'one' })
  expect((await sluicebox(cwd, 'rebase', '-b', '', 'top')).stdout).toBe('Image detached.\n')
  const detached = await sluicebox(cwd, 'rebase', '-b', '', '--output=json', 'top')
  expect(JSON.parse(detached.stdout)).not.toHaveProperty('new_backing')
})

test('a backing elsewhere is refused with the names of what allows it, each of which does', async () => {
  const folder = makeFolder()
  for (const name of ['bases', 'images']) mkdirSync(folder(name))
  await qemuImg('create', '-q', '-f', 'qcow2', folder('bases/base'), '1M')
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', folder('bases/base'), '-F', 'qcow2', folder('images/top'))
  const cwd = folder('images')
  const refused = await sluicebox(cwd, 'image', 'info', '--backing-chain', 'top')
  expect(refused).toMatchObject({ code: 1, stdout: '' })
  expect(refused.stderr).toMatch(/^sluicebox: .*--allow-path DIR or SLUICEBOX_ALLOW_PATHS\n$/)
  const allowed = await sluicebox(cwd, 'image', 'info', '--backing-chain', '--allow-path', folder('bases'), 'top')
  expect(allowed).toMatchObject({ code: 0, stderr: '' })
  const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
  const env = `SLUICEBOX_ALLOW_PATHS=/nowhere:${folder('bases')}`
  const byEnvironment = await program(
    'env',
    [env, process.execPath, main, 'image', 'info', '--backing-chain', 'top'],
    cwd,
  )
  expect(byEnvironment).toEqual(allowed)
  // What the caller names needs no leave, with a list or without, by an absolute name or a relative one.
  const absolute = ['-b', folder('bases/base'), '-F', 'qcow2', 'top']
  expect(await sluicebox(cwd, 'image', 'rebase', '--allow-path', '/nowhere', ...absolute)).toMatchObject({ code: 0 })
  expect(
    await sluicebox(cwd, 'rebase', '--allow-path', '/nowhere', '-b', '../bases/base', '-F', 'qcow2', 'top'),
  ).toMatchObject({
    code: 0,
    stderr: '',
  })
})

test('output that cannot be written is an error of one line', async () => {
  const folder = makeFolder()
  await qemuImg('create', '-q', '-f', 'raw', folder('plain'), '1M')
  const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
  const full = await program('sh', ['-c', `"$0" "$1" image info plain > /dev/full`, process.execPath, main], folder(''))
  expect(full).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^sluicebox: cannot write the output: ENOSPC.*\n$/),
  })
  const early = await program(
    'sh',
    ['-c', `"$0" "$1" image info plain | head -c 1`, process.execPath, main],
    folder(''),
  )
  expect(early).toEqual({ code: 0, stdout: 'i', stderr: '' })
})

test('SIGINT ends a rebase with 130 and leaves the overlay as it was', async () => {
  const folder = makeFolder()
  for (const [name, value] of [
    ['one', 1],
    ['two', 2],
  ] as const) {
    await qemuImg('create', '-q', '-f', 'qcow2', folder(name), '512M')
    await qemuIo(folder(name), [`write -P ${value} 0 512M`])
  }
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', folder('one'), '-F', 'qcow2', folder('top'))
  const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
  const child = spawn(process.execPath, [main, 'rebase', '-p', '-b', 'two', '-F', 'qcow2', 'top'], { cwd: folder('') })
  child.stderr.resume()
  // Once it has begun to tell, it has begun to work.
  await once(child.stdout, 'data')
  child.stdout.resume()
  child.kill('SIGINT')
  const [code] = await once(child, 'close')
  expect(code).toBe(130)
  expect(await qemuInfo(folder('top'))).toMatchObject({ 'backing-filename': folder('one') })
  await qemuImg('check', '-q', folder('top'))
})
