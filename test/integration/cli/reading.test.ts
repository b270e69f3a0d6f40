// `sluicebox image compare, map, measure` and `convert` beside qemu-img's.
import { expect, test } from 'vitest'
import { both, pairOfFolders } from '../../support/cli.js'
import { program } from '../../support/qemu.js'

/** A chain of two, with data, zeros and nothing in both, and a copy of its bottom that is longer. */
async function prepareChain({ prepare, write }: ReturnType<typeof pairOfFolders>): Promise<void> {
  await prepare('create', '-q', '-f', 'qcow2', 'base.qcow2', '16M')
  await write('base.qcow2', 'write -P 1 1M 300k', 'write -z 4M 1M', 'write -P 2 8M 64k')
  await prepare('convert', '-O', 'raw', 'base.qcow2', 'base.raw')
  await prepare('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2')
  await write('top.qcow2', 'write -P 3 1280k 128k', 'write -z 8M 32k')
}

test('compare: the same words and exit codes', async () => {
  const pair = pairOfFolders()
  const { same, prepare, bothRefuse } = pair
  await prepareChain(pair)
  await prepare('convert', '-O', 'raw', 'base.qcow2', 'longer.raw')
  await prepare('resize', '-q', '-f', 'raw', 'longer.raw', '17M')
  await same('compare', 'base.qcow2', 'base.raw')
  await same('compare', '-f', 'qcow2', '-F', 'raw', 'base.qcow2', 'base.raw')
  await same('compare', 'base.qcow2', 'longer.raw')
  await same('compare', '-s', 'base.qcow2', 'longer.raw')
  await same('compare', 'base.qcow2', 'top.qcow2')
  await same('compare', '-q', 'base.qcow2', 'top.qcow2')
  await bothRefuse(2, 'compare', 'base.qcow2', 'gone.qcow2')
  await bothRefuse(1, 'compare', 'base.qcow2')
})

test('map: the same parts, for people and as JSON', async () => {
  const pair = pairOfFolders()
  const { same, sameJson, prepare, folders } = pair
  await prepareChain(pair)
  for (const file of ['base.qcow2', 'top.qcow2', 'base.raw']) await sameJson('map', '--output=json', file)
  await same('map', '--output=json', 'top.qcow2')
  await same('map', 'top.qcow2')
  await same('map', './top.qcow2')
  await sameJson('map', '--output=json', '--start-offset=1M', '--max-length', '400k', 'top.qcow2')
  await same('map', '-s', '1M', '-l', '400k', 'top.qcow2')
  await prepare('convert', '-c', '-O', 'qcow2', 'base.qcow2', 'packed.qcow2')
  const { ours, theirs } = await both(folders, 'map', 'packed.qcow2')
  expect(ours.code).toBe(1)
  expect(ours.stdout).toBe(theirs.stdout)
  expect(ours.stderr.slice('sluicebox: '.length)).toBe(theirs.stderr.slice('qemu-img: '.length))
})

test('measure: the same sizes', async () => {
  const pair = pairOfFolders()
  const { same, sameJson, prepare, bothRefuse } = pair
  await prepareChain(pair)
  await same('measure', '--size', '1G', '-O', 'qcow2')
  await same('measure', '--size=10M')
  await same('measure', 'base.raw')
  await same('measure', '-O', 'qcow2', 'base.raw')
  await sameJson('measure', '--output=json', '-O', 'qcow2', 'base.raw')
  await sameJson('measure', '--output=json', '-O', 'raw', 'top.qcow2')
  await same('measure', '-O', 'qcow2', 'top.qcow2')
  await same('measure', '-O', 'qcow2', '-o', 'cluster_size=4k,refcount_bits=64', '-o', 'compat=1.1', 'top.qcow2')
  await same('measure', '-O', 'qcow2', '-o', 'preallocation=full', '--size', '10M')
  await same('measure', '-O', 'qcow2', '-o', 'backing_file=x', 'top.qcow2')
  await same('measure', '-O', 'raw', '-o', 'preallocation=full', 'top.qcow2')
  await prepare('snapshot', '-c', 'before', 'base.qcow2')
  await same('measure', '-O', 'qcow2', '-l', 'before', 'base.qcow2')
  await prepare('bitmap', '--add', 'base.qcow2', 'changed')
  await same('measure', '-O', 'qcow2', 'base.qcow2')
  await sameJson('measure', '-O', 'qcow2', '--output=json', 'base.qcow2')
  await bothRefuse(1, 'measure', '-O', 'vmdk', 'base.qcow2')
  await bothRefuse(1, 'measure', '-O', 'qcow2', '-o', 'cluster_size=3000', 'base.qcow2')
  await bothRefuse(1, 'measure', '-O', 'qcow2', '-o', 'nonsense=1', 'base.qcow2')
  await bothRefuse(1, 'measure', '-O', 'qcow2', '-l', 'gone', 'base.qcow2')
  await bothRefuse(1, 'measure', '--size', '1G', 'base.raw')
  await bothRefuse(1, 'measure', '--size', '1G', '-l', 'before')
  await bothRefuse(1, 'measure', '--size', '1G', '-f', 'raw')
  await bothRefuse(1, 'measure')
})

test('convert: what is made reads the same, and is as large', async () => {
  const pair = pairOfFolders()
  const { prepare, folders, run, bothRefuse } = pair
  await prepareChain(pair)
  await prepare('snapshot', '-c', 'kept', 'base.qcow2')
  const calls = [
    ['-O', 'qcow2', 'top.qcow2'],
    ['top.qcow2'],
    ['-O', 'raw', '-S', '0', 'base.raw'],
    ['-c', '-O', 'qcow2', '-m', '2', 'top.qcow2'],
    ['-O', 'qcow2', '-o', 'cluster_size=4k,compat=0.10', 'top.qcow2'],
    ['-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2', 'top.qcow2'],
    ['-O', 'qcow2', '-l', 'kept', 'base.qcow2'],
    ['-O', 'qcow2', '-l', 'snapshot.name=kept', 'base.qcow2'],
    ['-q', '-t', 'none', '-W', '-f', 'raw', '-O', 'qcow2', 'base.raw'],
  ]
  for (const args of calls) {
    const { ours, theirs } = await run('convert', ...args, 'made')
    expect({ args, ...ours }).toEqual({ args, code: 0, stdout: '', stderr: '' })
    expect(theirs.code).toBe(0)
    const infos = await Promise.all(
      Object.values(folders).map(async (cwd) => {
        const { 'actual-size': _, ...info } = JSON.parse(
          (await program('qemu-img', ['info', '--output=json', 'made'], cwd)).stdout,
        )
        return info
      }),
    )
    expect({ args, info: infos[0] }).toEqual({ args, info: infos[1] })
    const same = await program('qemu-img', ['compare', `${folders.ours}/made`, `${folders.theirs}/made`])
    expect({ args, ...same }).toEqual({ args, code: 0, stdout: 'Images are identical.\n', stderr: '' })
  }
  const shown = await run('convert', '-p', '-O', 'qcow2', 'top.qcow2', 'made')
  for (const { stdout } of Object.values(shown))
    expect(stdout).toMatch(/^ {4}\(0\.00\/100%\)\r.* {4}\(100\.00\/100%\)\r\n$/s)
  await bothRefuse(1, 'convert', '-O', 'qcow2', 'gone.qcow2', 'none')
  await bothRefuse(1, 'convert', '-O', 'qcow2', '-m', '17', 'top.qcow2', 'none')
  await bothRefuse(1, 'convert', '-O', 'qcow2', '-l', 'nope', 'base.qcow2', 'none')
  await bothRefuse(1, 'convert', 'top.qcow2')
})
