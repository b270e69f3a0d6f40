// You will see the main job from end to end: real file systems in base images, an overlay moved between them, a cancelled move, a
// refused hostile image, and what each step cost here and with qemu-img; then a box that builds, streams, ends and vanishes; and
// a virtual machine whose disk moves to a new base while it runs, and a clone that goes on from its memory.
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime, SluiceboxError } from 'sluicebox'
import { guestChecksum, mib, program, stageFiles, timed } from './support/machine.js'
import { progressBar, say, table } from './support/screen.js'
import { keepers, tourBoxes } from './support/tour-boxes.js'
import { tourMachines } from './support/tour-machines.js'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-tour-'))
const at = (name: string) => join(folder, name)
const rows: string[][] = []
const compared = (step: string, ours: number, theirs: number | null) =>
  rows.push([
    step,
    `${ours.toFixed(1)} ms`,
    theirs === null ? '-' : `${theirs.toFixed(1)} ms`,
    theirs === null ? '-' : `${(theirs / ours).toFixed(1)} x`,
  ])

let broken: string | undefined
const expectSame = (what: string, got: unknown, wanted: unknown) => {
  if (got !== wanted) broken = `${what}: expected ${wanted}, got ${got}`
  say(`  ${got === wanted ? 'ok' : 'WRONG'}: ${what}`)
}

const before = { fds: (await readdir('/proc/self/fd')).length, threads: (await readdir('/proc/self/task')).length }
const runtime = new Runtime({ home: at('home') })
try {
  const { images } = runtime

  say('1. A base image with a real ext4 file system')
  await mkdir(at('files'))
  const files = await stageFiles(at('files'), 220 * mib)
  const [, createRaw] = await timed(() => images.create(at('base-1.raw'), { format: 'raw', size: '384M' }))
  const [, mkfs] = await timed(() => program('mkfs.ext4', ['-q', '-F', '-d', at('files'), at('base-1.raw')]))
  say(`  ${files.count} files of this machine, ${(files.bytes / mib).toFixed(0)} MiB, in base-1.raw`)
  compared(
    'create a raw image',
    createRaw,
    (await timed(() => program('qemu-img', ['create', '-q', '-f', 'raw', at('peer.raw'), '384M'])))[1],
  )
  compared('fill it (mkfs.ext4 -d)', mkfs, null)

  say('2. A qcow2 overlay, written through as a guest would')
  const overlay = at('overlay.qcow2')
  const [, createOverlay] = await timed(() =>
    images.create(overlay, { format: 'qcow2', backing: { path: 'base-1.raw', format: 'raw' } }),
  )
  const createArgs = ['create', '-q', '-f', 'qcow2', '-b', 'base-1.raw', '-F', 'raw']
  compared(
    'create an overlay',
    createOverlay,
    (await timed(() => program('qemu-img', [...createArgs, at('peer.qcow2')])))[1],
  )
  for (const image of [overlay, at('peer.qcow2')]) {
    await program('qemu-io', [
      '-f',
      'qcow2',
      '-c',
      'write -q -P 0x5a 100M 8M',
      '-c',
      'write -q -P 0xa5 250M 64K',
      image,
    ])
  }
  const guest = await guestChecksum(overlay, folder)
  say(`  the guest reads sha256 ${guest.slice(0, 16)}…`)

  say('3. A second base: the first, with newer files in it')
  await program('cp', ['--sparse=always', at('base-1.raw'), at('base-2.raw')])
  const newer = files.names.slice(0, 40).map((name, index) => `write ${join(at('files'), name)} updated-${index}`)
  await writeFile(at('update.debugfs'), `${newer.join('\n')}\n`)
  await program('debugfs', ['-w', '-f', at('update.debugfs'), at('base-2.raw')])

  say('4. The overlay moves to it')
  const bar = progressBar()
  const [moved, rebase] = await timed(() =>
    runtime.rebase(overlay, { backing: 'base-2.raw', backingFormat: 'raw', onProgress: bar.show }),
  )
  bar.end()
  say(`  ${moved.from} -> ${moved.to}: ${moved.clustersCompared} clusters compared, ${moved.clustersCopied} copied`)
  compared(
    'rebase it',
    rebase,
    (
      await timed(() =>
        program('qemu-img', ['rebase', '-f', 'qcow2', '-b', 'base-2.raw', '-F', 'raw', at('peer.qcow2')]),
      )
    )[1],
  )
  expectSame('the guest reads the same bytes', await guestChecksum(overlay, folder), guest)
  const [, qemuCheck] = await timed(() => program('qemu-img', ['check', '-q', overlay]))
  const [report, check] = await timed(() => images.check(overlay))
  expectSame('qemu-img check finds nothing, neither do we', report.ok, true)
  compared('check it', check, qemuCheck)

  say('5. A move back, cancelled half-way')
  const controller = new AbortController()
  const back = runtime.rebase(overlay, {
    backing: 'base-1.raw',
    backingFormat: 'raw',
    signal: controller.signal,
    onProgress: ({ done, total }) =>
      total && done * 2 >= total && controller.abort(new Error(`cancelled at ${Math.round((done / total) * 100)} %`)),
  })
  const outcome = await back.then(
    () => 'finished before the cancel came',
    (error: Error) => error.message,
  )
  say(`  the promise says: ${outcome}`)
  expectSame(
    'the overlay stands on the second base, or wholly on the first',
    ['base-2.raw', 'base-1.raw'].includes((await images.info(overlay)).backing?.path ?? ''),
    true,
  )
  expectSame('no corruption', (await images.check(overlay)).corruptions, 0)
  expectSame('the guest reads the same bytes', await guestChecksum(overlay, folder), guest)

  say('6. A chain')
  await images.create(at('top.qcow2'), { format: 'qcow2', backing: { path: 'overlay.qcow2', format: 'qcow2' } })
  const [chain, info] = await timed(() => images.info(at('top.qcow2'), { chain: true }))
  for (const [depth, layer] of (chain.chain ?? []).entries()) {
    say(`  ${'  '.repeat(depth)}${layer.format} ${layer.path.slice(folder.length + 1)}`)
  }
  compared(
    'info with its chain',
    info,
    (await timed(() => program('qemu-img', ['info', '--backing-chain', at('top.qcow2')])))[1],
  )

  say('7. Hostile images')
  const huge = Buffer.alloc(1024)
  huge.write('QFI\xfb', 'latin1')
  huge.writeUInt32BE(3, 4) // version
  huge.writeUInt32BE(16, 20) // cluster bits
  huge.writeUInt32BE(0xffffffff, 36) // L1 entries: a table of 32 GiB
  huge.writeUInt32BE(104, 100) // header length
  await writeFile(at('huge.qcow2'), huge)
  await program('qemu-img', [
    'create',
    '-q',
    '-u',
    '-f',
    'qcow2',
    '-b',
    '/etc/passwd',
    '-F',
    'raw',
    at('spy.qcow2'),
    '1M',
  ])
  for (const [name, attack] of [
    ['huge.qcow2', () => images.info(at('huge.qcow2'))],
    ['spy.qcow2', () => images.info(at('spy.qcow2'), { chain: true })],
  ] as const) {
    const refusal = await attack().then(
      () => undefined,
      (error: unknown) => error,
    )
    if (!SluiceboxError.is(refusal)) throw new Error(`${name} was not refused`, { cause: refusal })
    say(
      `  ${name}: ${refusal.code}: ${refusal.message.replaceAll(`${folder}/`, '')}${refusal.hint ? `\n    ${refusal.hint}` : ''}`,
    )
  }

  await tourBoxes(runtime, expectSame)
  await tourMachines(runtime, folder, expectSame)
} finally {
  say('18. Close')
  await runtime.close()
  const left = await readdir(folder)
  await rm(folder, { recursive: true })
  const { handles, queue } = runtime.stats()
  expectSame('no handle lives, no event waits', handles.live + queue.depth, 0)
  expectSame('no temporary file is left', left.filter((name) => name.startsWith('.')).length, 0)
  expectSame('no keeper is left', (await keepers()).length, 0)
  expectSame('no thread is left', (await readdir('/proc/self/task')).length <= before.threads, true)
  expectSame(
    'no descriptor of an image is left',
    await stat('/proc/self/fd').then(async () => (await readdir('/proc/self/fd')).length - before.fds <= 2),
    true,
  )
}
say('')
table(['step', 'sluicebox', 'qemu-img', 'ratio'], rows)
if (broken) throw new Error(broken)
