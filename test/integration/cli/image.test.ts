// `sluicebox image` stands in for qemu-img: the same calls, and both programs' outputs and exit codes side by side.
import { open, truncate } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { both, pairOfFolders } from '../../support/cli.js'
import { makeFolder } from '../../support/folder.js'
import { holdInQemu, program, qemuImg, qemuIo } from '../../support/qemu.js'

test('create prints what it makes, and makes what qemu-img makes', async () => {
  const { same, folders, bothRefuse } = pairOfFolders()
  await same('create', '-f', 'qcow2', 'base.qcow2', '64M')
  await same('create', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'overlay.qcow2')
  await same('create', '-fqcow2', '-obacking_file=base.qcow2,backing_fmt=qcow2', 'other.qcow2', '1.5G')
  await same(
    'create',
    '-f',
    'qcow2',
    '-o',
    'cluster_size=4k,lazy_refcounts=on',
    '-o',
    'refcount_bits=64',
    'small.qcow2',
    '8M',
  )
  await same('create', '-f', 'qcow2', '-o', 'compat=0.10', 'old.qcow2', '8M')
  await same('create', '-f', 'qcow2', '-o', 'preallocation=metadata,size=4M', 'metadata.qcow2')
  await same('create', '-f', 'qcow2', '-o', 'extended_l2=on', 'parts.qcow2', '8M')
  await same('create', 'plain', '10M')
  await same('create', '-f', 'raw', '-o', 'preallocation=falloc', 'space.raw', '1M')
  await same('create', '-q', '-f', 'qcow2', 'base.qcow2', '32M')
  // Over what is not there yet.
  await same('create', '-u', '-f', 'qcow2', '-b', 'later.qcow2', '-F', 'qcow2', 'early.qcow2', '12M')
  await same('create', '-u', '-f', 'qcow2', 'alone.qcow2', '12M')
  for (const file of [
    'base.qcow2',
    'overlay.qcow2',
    'other.qcow2',
    'small.qcow2',
    'old.qcow2',
    'parts.qcow2',
    'early.qcow2',
    'plain',
  ]) {
    const answers = await Promise.all(
      Object.values(folders).map((cwd) => program('qemu-img', ['info', '--output=json', file], cwd)),
    )
    const [ours, theirs] = answers.map(({ stdout }) => {
      const { 'actual-size': _, children: __, ...info } = JSON.parse(stdout)
      return info
    })
    expect(ours).toEqual(theirs)
  }
  await bothRefuse(1, 'create', '-f', 'qcow2', 'none.qcow2')
  await bothRefuse(1, 'create', '-u', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'none.qcow2')
  await bothRefuse(1, 'create', '-f', 'qcow2', '-F', 'qcow2', 'none.qcow2', '1M')
  await bothRefuse(1, 'create', '-u', '-f', 'raw', '-b', 'base.qcow2', '-F', 'qcow2', 'none.raw', '1M')
  await bothRefuse(1, 'create', '-u', '-f', 'vmdk', '-b', 'later.vmdk', '-F', 'vmdk', 'none.vmdk', '1M')
  await bothRefuse(1, 'create', '-f', 'nope', 'none.qcow2', '1M')
  await bothRefuse(1, 'create', '-f', 'qcow2', '-o', 'nope=1', 'none.qcow2', '1M')
  await bothRefuse(1, 'create', '-f', 'qcow2', 'none.qcow2', '1X')
  await bothRefuse(1, 'create', '-f', 'qcow2', '-b', 'base.qcow2', 'none.qcow2')
  await bothRefuse(1, 'create', '-f', 'qcow2', '-b', 'gone.qcow2', '-F', 'qcow2', 'none.qcow2')
  await bothRefuse(1, 'create', '-f', 'qcow2', '-o', 'cluster_size=3k', 'none.qcow2', '1M')
  await bothRefuse(1, 'create', '-f', 'qcow2', 'no/such/folder.qcow2', '1M')
})

test('info says the same, for people and as JSON, of images, chains and snapshots', async () => {
  const { same, sameJson, prepare, write, file, bothRefuse } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'base.qcow2', '64M')
  await write('base.qcow2', 'write -P 7 1M 300k')
  await prepare('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'overlay.qcow2')
  await prepare('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10,cluster_size=1M', 'old.qcow2', '3G')
  await prepare('create', '-q', '-f', 'raw', 'plain.raw', '1500000')
  file('text', 'not an image at all')
  for (const name of ['base.qcow2', 'overlay.qcow2', 'old.qcow2', 'plain.raw', './plain.raw']) {
    await same('info', name)
    await sameJson('info', '--output=json', name)
  }
  await same('info', '--backing-chain', 'overlay.qcow2')
  await sameJson('info', '--backing-chain', '--output', 'json', 'overlay.qcow2')
  await same('info', '-f', 'raw', 'plain.raw')
  await same('info', '-U', 'base.qcow2')
  await bothRefuse(1, 'info', 'gone.qcow2')
  await bothRefuse(1, 'info', '-f', 'qcow2', 'plain.raw')
  await bothRefuse(1, 'info')
  await bothRefuse(1, 'info', 'base.qcow2', 'overlay.qcow2')
  await bothRefuse(1, 'info', '--nope', 'base.qcow2')
  await bothRefuse(1, 'info', '--output=xml', 'base.qcow2')
})

test('info lists the persistent bitmaps of an image as qemu-img does', async () => {
  const { prepare, same, sameJson } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'disk.qcow2', '1G')
  await prepare('bitmap', '--add', 'disk.qcow2', 'first')
  await prepare('bitmap', '--add', '-g', '1M', '--disable', 'disk.qcow2', 'second, with a comma')
  await same('info', 'disk.qcow2')
  await sameJson('info', '--output=json', 'disk.qcow2')
})

test('info lists the snapshots inside an image as qemu-img does', async () => {
  const folder = makeFolder()
  const path = folder('')
  await program('qemu-img', ['create', '-q', '-f', 'qcow2', 'a.qcow2', '16M'], path)
  await program('qemu-img', ['snapshot', '-c', 'first', 'a.qcow2'], path)
  await program('qemu-img', ['snapshot', '-c', 'a name that is longer than its column', 'a.qcow2'], path)
  for (const args of [
    ['info', 'a.qcow2'],
    ['info', '--output=json', 'a.qcow2'],
  ]) {
    const { ours, theirs } = await both({ ours: path, theirs: path }, ...args)
    if (args.length === 2) expect(ours).toEqual(theirs)
    else expect(JSON.parse(ours.stdout)).toEqual(JSON.parse(theirs.stdout, toMilliseconds))
  }
})

/** A Date has no more. */
const toMilliseconds = (key: string, value: unknown) =>
  key === 'date-nsec' ? Math.floor((value as number) / 1e6) * 1e6 : value

test('check has the same counts, words and exit codes: 0 clean, 2 corrupt, 3 leaks, 63 not checkable', async () => {
  const { same, sameJson, prepare, write, folders, bothRefuse } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'clean.qcow2', '64M')
  await same('check', 'clean.qcow2')
  await write('clean.qcow2', 'write 0 10M')
  await same('check', 'clean.qcow2')
  await sameJson('check', '--output=json', 'clean.qcow2')
  await same('check', '-q', 'clean.qcow2')
  await prepare('create', '-q', '-f', 'raw', 'plain.raw', '1M')
  await bothRefuse(63, 'check', 'plain.raw')
  await bothRefuse(1, 'check', 'gone.qcow2')
  // A reference count too many is a leak; a mapping to a cluster that nobody counts is a corruption.
  await prepare('create', '-q', '-f', 'qcow2', 'leaky.qcow2', '1M')
  await prepare('create', '-q', '-f', 'qcow2', 'corrupt.qcow2', '1M')
  await write('corrupt.qcow2', 'write 0 64k')
  for (const cwd of Object.values(folders)) {
    await truncate(`${cwd}/leaky.qcow2`, 5 * 65536)
    await patch(`${cwd}/leaky.qcow2`, 2 * 65536 + 2 * 4, 1)
    await patch(`${cwd}/corrupt.qcow2`, 2 * 65536 + 2 * 5, 0)
  }
  const codes = async (...args: string[]) => {
    const { ours, theirs } = await both(folders, ...args)
    expect({ args, code: ours.code }).toEqual({ args, code: theirs.code })
    return { ours: ours.stdout, theirs: theirs.stdout, code: ours.code }
  }
  expect((await codes('check', 'leaky.qcow2')).code).toBe(3)
  expect((await codes('check', 'corrupt.qcow2')).code).toBe(2)
  const asJson = await codes('check', '--output=json', 'leaky.qcow2')
  expect(JSON.parse(asJson.ours)).toEqual(JSON.parse(asJson.theirs))
  const repaired = await codes('check', '-r', 'leaks', 'leaky.qcow2')
  expect(repaired.ours).toBe(repaired.theirs.replace(/^Repairing .*\n/gm, ''))
  expect((await codes('check', '-r', 'all', 'corrupt.qcow2')).code).toBe(0)
  expect((await codes('check', 'corrupt.qcow2')).code).toBe(0)
})

async function patch(path: string, offset: number, value: number): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(Buffer.from([0, value]), 0, 2, offset)
  await file.close()
}

test('rebase, commit and resize do what qemu-img does, and say as much', async () => {
  const { same, prepare, write, folders, bothRefuse, run } = pairOfFolders()
  const guest = async (cwd: string, name: string) => {
    await program('qemu-img', ['convert', '-O', 'raw', name, 'guest.raw'], cwd)
    return (await program('sha256sum', ['guest.raw'], cwd)).stdout
  }
  const sameGuest = async (name: string) =>
    expect(await guest(folders.ours, name)).toBe(await guest(folders.theirs, name))
  await prepare('create', '-q', '-f', 'qcow2', 'one.qcow2', '16M')
  await write('one.qcow2', 'write -P 1 0 4M')
  await prepare('create', '-q', '-f', 'qcow2', 'two.qcow2', '16M')
  await write('two.qcow2', 'write -P 2 2M 4M')
  await prepare('create', '-q', '-f', 'qcow2', '-b', 'one.qcow2', '-F', 'qcow2', 'top.qcow2')
  await write('top.qcow2', 'write -P 3 1M 1M')
  await same('rebase', '-b', 'two.qcow2', '-F', 'qcow2', 'top.qcow2')
  await sameGuest('top.qcow2')
  await same('rebase', '-u', '-b', './two.qcow2', '-F', 'qcow2', 'top.qcow2')
  await bothRefuse(1, 'rebase', '-b', 'gone.qcow2', '-F', 'qcow2', 'top.qcow2')
  await bothRefuse(1, 'rebase', 'top.qcow2')
  const progress = await run('rebase', '-p', '-b', 'one.qcow2', '-F', 'qcow2', 'top.qcow2')
  for (const { code, stdout } of Object.values(progress)) {
    expect(code).toBe(0)
    expect(stdout).toMatch(/^ {4}\(0\.00\/100%\)\r.* {4}\(100\.00\/100%\)\r\n$/s)
  }
  await same('commit', 'top.qcow2')
  await sameGuest('one.qcow2')
  await write('top.qcow2', 'write -P 4 3M 1M')
  await same('commit', '-d', 'top.qcow2')
  await sameGuest('one.qcow2')
  await same('commit', '-q', 'top.qcow2')
  await same('rebase', '-b', '', 'top.qcow2')
  await sameGuest('top.qcow2')
  await bothRefuse(1, 'commit', 'top.qcow2')
  await same('resize', 'top.qcow2', '+1M')
  await same('resize', 'top.qcow2', '20M')
  await sameGuest('top.qcow2')
  await same('resize', '--shrink', 'top.qcow2', '-4M')
  await sameGuest('top.qcow2')
  await prepare('create', '-q', '-f', 'raw', 'plain.raw', '1M')
  await same('resize', '-f', 'raw', '--preallocation=falloc', 'plain.raw', '2M')
  for (const mode of ['metadata', 'falloc', 'full', 'off'])
    await same('resize', `--preallocation=${mode}`, 'top.qcow2', '+1M')
  await sameGuest('top.qcow2')
  await bothRefuse(1, 'resize', '-f', 'raw', '--preallocation=metadata', 'plain.raw', '3M')
  await bothRefuse(1, 'resize', '--preallocation=some', 'top.qcow2', '+1M')
  const small = await run('resize', 'top.qcow2', '1M')
  for (const { code, stderr } of Object.values(small)) {
    expect(code).toBe(1)
    expect(stderr).toContain('Use the --shrink option to perform a shrink operation')
  }
  await bothRefuse(1, 'resize', 'top.qcow2')
})

test('snapshot lists, makes, applies and removes what qemu-img does', async () => {
  const { same, sameJson, prepare, write, folders, bothRefuse } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'a.qcow2', '4M')
  await same('snapshot', '-l', 'a.qcow2')
  await write('a.qcow2', 'write -P 1 0 1M')
  await same('snapshot', '-c', 'first', 'a.qcow2')
  await write('a.qcow2', 'write -P 2 512k 1M')
  await same('snapshot', '-q', '-c', 'second', 'a.qcow2')
  await same('snapshot', '-a', 'first', 'a.qcow2')
  await same('snapshot', '-d', 'first', 'a.qcow2')
  // One list for both programs: the times are of two moments.
  const cwd = { ours: folders.ours, theirs: folders.ours }
  for (const args of [
    ['snapshot', '-l', 'a.qcow2'],
    ['snapshot', '-U', '-l', 'a.qcow2'],
    ['info', 'a.qcow2'],
  ]) {
    const { ours, theirs } = await both(cwd, ...args)
    expect(ours).toEqual(theirs)
  }
  for (const path of Object.values(folders))
    expect((await program('qemu-img', ['check', '-q', 'a.qcow2'], path)).code).toBe(0)
  await sameJson('map', '--output=json', '-l', '1M', 'a.qcow2')
  const compared = await program('qemu-img', ['compare', `${folders.ours}/a.qcow2`, `${folders.theirs}/a.qcow2`])
  expect(compared.stdout).toBe('Images are identical.\n')
  await prepare('create', '-q', '-f', 'raw', 'plain.raw', '1M')
  await same('snapshot', '-l', 'plain.raw')
  await bothRefuse(1, 'snapshot', '-c', 'none', 'plain.raw')
  await bothRefuse(1, 'snapshot', '-a', 'none', 'a.qcow2')
  await bothRefuse(1, 'snapshot', '-d', 'none', 'a.qcow2')
  await bothRefuse(1, 'snapshot', '-l', '-c', 'none', 'a.qcow2')
})

test('convert -n writes over an image that is there as qemu-img does', async () => {
  const { same, prepare, write, folders, bothRefuse } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'source.qcow2', '4M')
  await write('source.qcow2', 'write -P 1 100k 1M', 'write -P 2 3M 1M')
  for (const format of ['raw', 'qcow2', 'vmdk', 'vpc', 'vhdx']) {
    const target = `there.${format}`
    await prepare('create', '-q', '-f', format, target, '6M')
    for (const cwd of Object.values(folders)) await qemuIo(`${cwd}/${target}`, ['write -P 3 0 6M'], format)
    await same('convert', '-n', '-O', format, 'source.qcow2', target)
    await qemuImg(
      'compare',
      '-q',
      '-f',
      format,
      '-F',
      format,
      `${folders.ours}/${target}`,
      `${folders.theirs}/${target}`,
    )
  }
  await prepare('create', '-q', '-f', 'qcow2', 'fresh.qcow2', '4M')
  await same('convert', '-n', '--target-is-zero', '-O', 'qcow2', 'source.qcow2', 'fresh.qcow2')
  await qemuImg('compare', '-q', `${folders.ours}/fresh.qcow2`, `${folders.ours}/source.qcow2`)
  await prepare('create', '-q', '-f', 'raw', 'base.raw', '4M')
  await same('convert', '-n', '-B', 'base.raw', '-F', 'raw', '-O', 'qcow2', 'source.qcow2', 'fresh.qcow2')
  await bothRefuse(1, 'convert', '-F', 'raw', '-O', 'qcow2', 'source.qcow2', 'made.qcow2')
  await bothRefuse(1, 'convert', 'source.qcow2', 'base.raw/not-a-folder')
  await bothRefuse(1, 'convert', 'source.qcow2', 'x'.repeat(300))
  await prepare('create', '-q', '-f', 'qcow2', 'small.qcow2', '2M')
  await bothRefuse(1, 'convert', '-n', '-O', 'qcow2', 'source.qcow2', 'small.qcow2')
  await bothRefuse(1, 'convert', '-n', '-O', 'qcow2', 'source.qcow2', 'gone.qcow2')
  await bothRefuse(1, 'convert', '-n', '-O', 'qcow2', '-o', 'cluster_size=4k', 'source.qcow2', 'fresh.qcow2')
  await bothRefuse(1, 'convert', '--target-is-zero', '-O', 'qcow2', 'source.qcow2', 'fresh.qcow2')
  await bothRefuse(1, 'convert', '-n', '-O', 'vmdk', 'source.qcow2', 'fresh.qcow2')
})

test('convert joins several sources as qemu-img does', async () => {
  const { same, prepare, write, file, run, bothRefuse } = pairOfFolders()
  file('first.raw', Buffer.alloc(100_001, 0x11))
  await prepare('create', '-q', '-f', 'qcow2', 'second.qcow2', '1M')
  await write('second.qcow2', 'write -P 0x22 0 64K', 'write -P 0x22 1020K 4K')
  for (const format of ['raw', 'qcow2', 'vmdk']) {
    await same('convert', '-O', format, 'second.qcow2', 'first.raw', 'second.qcow2', `joined.${format}`)
    expect((await run('compare', '-f', format, `joined.${format}`, '../theirs/joined.raw')).ours).toMatchObject({
      stdout: 'Images are identical.\n',
      code: 0,
    })
  }
  const { ours } = await run('convert', '-f', 'qcow2', '-O', 'raw', 'second.qcow2', 'first.raw', 'x')
  expect(ours).toMatchObject({ code: 1, stderr: expect.stringContaining('/first.raw') })
  await bothRefuse(1, 'create', '-u', '-f', 'qcow2', '-b', 'self', '-F', 'qcow2', 'self', '1M')
  await bothRefuse(1, 'convert', '-l', 'clean', 'first.raw', 'second.qcow2', 'x')
  await bothRefuse(1, 'convert', '-O', 'qcow2', '-B', 'first.raw', '-F', 'raw', 'first.raw', 'second.qcow2', 'x')
  await bothRefuse(1, 'convert', '-O', 'qcow2', 'first.raw', 'gone.raw', 'x')
  await bothRefuse(1, 'convert', '-O', 'qcow2', 'first.raw')
})

test('convert --salvage reads around damage as qemu-img does, and says what is lost', async () => {
  const { prepare, write, run, folders, same } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
  await write('a.qcow2', 'write -P 0x22 0 1M')
  for (const cwd of Object.values(folders)) {
    // The entries 3 and 4 of its table lead past the file's end.
    const file = await open(`${cwd}/a.qcow2`, 'r+')
    await file.write(Buffer.from('80000100000000008000010000000000', 'hex'), 0, 16, 4 * 65536 + 3 * 8)
    await file.close()
  }
  const { ours, theirs } = await run('convert', '--salvage', '-O', 'raw', 'a.qcow2', 'a.raw')
  expect([ours.code, ours.stdout]).toEqual([theirs.code, theirs.stdout])
  expect(ours.stderr).toBe(
    'sluicebox: warning: 131072 bytes at offset 196608 could not be read, and are zeros\n' +
      'sluicebox: warning: 131072 bytes are lost\n',
  )
  await same('compare', '-f', 'raw', '-F', 'raw', 'a.raw', '../theirs/a.raw')
  const { ours: refused } = await run('convert', '-O', 'raw', 'a.qcow2', 'b.raw')
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining(': --salvage reads around')])
  const { ours: quiet } = await run('convert', '-q', '--salvage', '-O', 'raw', 'a.qcow2', 'b.raw')
  expect(quiet).toEqual({ code: 0, stdout: '', stderr: '' })
  const { ours: sound } = await run('convert', '--salvage', '-O', 'qcow2', 'a.raw', 'b.qcow2')
  expect(sound).toEqual({ code: 0, stdout: '', stderr: '' })
})

test('-U reads what another program has open', async () => {
  const { same, sameJson, prepare, write, folders, bothRefuse } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'held.qcow2', '4M')
  await prepare('create', '-q', '-f', 'qcow2', 'other.qcow2', '4M')
  await write('held.qcow2', 'write -P 1 100k 1M')
  for (const cwd of Object.values(folders)) await holdInQemu(`${cwd}/held.qcow2`)
  await same('info', '-U', 'held.qcow2')
  await same('map', '-U', 'held.qcow2')
  await sameJson('map', '--force-share', '--output=json', 'held.qcow2')
  await same('check', '-U', 'held.qcow2')
  await same('measure', '-U', '-O', 'qcow2', 'held.qcow2')
  await same('compare', '-U', 'held.qcow2', 'other.qcow2')
  await same('convert', '-U', '-O', 'raw', 'held.qcow2', 'copy.raw')
  await bothRefuse(1, 'map', 'held.qcow2')
  await bothRefuse(1, 'check', 'held.qcow2')
  await bothRefuse(1, 'measure', '-O', 'qcow2', 'held.qcow2')
  await bothRefuse(2, 'compare', 'held.qcow2', 'other.qcow2')
  await bothRefuse(1, 'convert', '-O', 'raw', 'held.qcow2', 'copy.raw')
  await bothRefuse(1, 'check', '-U', '-r', 'all', 'held.qcow2')
})

test('what qemu-img has and this program does not is refused by name', async () => {
  const { run, prepare } = pairOfFolders()
  await prepare('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
  for (const [args, word] of [
    [['info', '--image-opts', 'driver=qcow2,file.filename=a.qcow2'], '--image-opts'],
    [['info', '--object', 'secret,id=a', 'a.qcow2'], '--object'],
    [['rebase', '-U', '-b', '', 'a.qcow2'], '--force-share'],
    [['convert', '-r', '1M', 'a.qcow2', 'b.raw'], '--rate-limit'],
    [['rebase', '-t', 'nope', '-b', '', 'a.qcow2'], "'nope'"],
    [['amend', 'a.qcow2'], 'amend'],
  ] as const) {
    const { ours } = await run(...args)
    expect({ args, code: ours.code, stderr: ours.stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(word),
    })
  }
})
