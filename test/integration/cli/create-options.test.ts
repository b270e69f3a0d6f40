// Every option that qemu-img lists for a new image: both programs take it and make the same of it, or it says here why not.
import { expect, test } from 'vitest'
import { pairOfFolders } from '../../support/cli.js'
import { qemuImg } from '../../support/qemu.js'

const overlays = 'a case of its own: -b and -F, in image.test.ts'
const encrypted = 'encryption is recognised, and refused by name'
const external = 'an external data file is recognised, and refused by name'

/** What -o says, or why it is left out. Those of vmdk are in images/vmdk.test.ts. */
const options: Record<string, Record<string, readonly string[] | string>> = {
  raw: { size: ['size=7M'] },
  qcow2: {
    backing_file: overlays,
    backing_fmt: overlays,
    cluster_size: ['cluster_size=512', 'cluster_size=4k', 'cluster_size=2M'],
    compat: ['compat=0.10', 'compat=v2', 'compat=v3', 'compat=1.1'],
    compression_type: ['compression_type=zlib', 'compression_type=zstd'],
    data_file: external,
    data_file_raw: external,
    'encrypt.cipher-alg': encrypted,
    'encrypt.cipher-mode': encrypted,
    'encrypt.format': encrypted,
    'encrypt.hash-alg': encrypted,
    'encrypt.iter-time': encrypted,
    'encrypt.ivgen-alg': encrypted,
    'encrypt.ivgen-hash-alg': encrypted,
    'encrypt.key-secret': encrypted,
    encryption: encrypted,
    extended_l2: ['extended_l2=off', 'extended_l2=on', 'extended_l2=on,cluster_size=128k'],
    lazy_refcounts: ['lazy_refcounts=on', 'lazy_refcounts=off'],
    preallocation: ['off', 'metadata', 'falloc', 'full'].map((mode) => `preallocation=${mode}`),
    refcount_bits: [1, 2, 4, 8, 16, 32, 64].map((bits) => `refcount_bits=${bits}`),
    size: ['size=7M'],
  },
  vpc: {
    force_size: ['force_size=on'],
    size: ['size=7M,force_size=on'],
    subformat: ['subformat=dynamic,force_size=on', 'subformat=fixed,force_size=on'],
  },
  vhdx: {
    block_size: ['block_size=0', 'block_size=1M', 'block_size=256M'],
    block_state_zero: ['block_state_zero=on'],
    log_size: ['log_size=1M', 'log_size=4M'],
    size: ['size=7M'],
    subformat: ['subformat=dynamic', 'subformat=fixed'],
  },
}

test.each(Object.keys(options))(
  'each option that qemu-img lists for %s is tried, or has a reason why not',
  async (format) => {
    const help = await qemuImg('create', '-f', format, '-o', 'help')
    const listed = [...help.matchAll(/^ {2}([\w.-]+)=</gm)].map(([, name]) => name)
    expect(Object.keys(options[format] ?? {}).sort()).toEqual(listed.sort())
  },
)

const tried = Object.entries(options).flatMap(([format, of]) =>
  Object.values(of).flatMap((given) =>
    typeof given === 'string' ? [] : given.map((option) => [format, option] as const),
  ),
)

test.each(tried)('create -f %s -o %s prints and makes the same', async (format, option) => {
  const { same, folders, run } = pairOfFolders()
  await same('create', '-f', format, '-o', option, 'a.img', ...(option.startsWith('size=') ? [] : ['20M']))
  const made = []
  for (const cwd of Object.values(folders)) {
    const { ours, theirs } = await run.in({ ours: cwd, theirs: cwd }, 'info', '--output=json', '-f', format, 'a.img')
    expect(JSON.parse(ours.stdout)).toEqual(JSON.parse(theirs.stdout))
    const { 'actual-size': _, ...rest } = JSON.parse(theirs.stdout)
    made.push(rest)
  }
  expect(made[0]).toEqual(made[1])
})
