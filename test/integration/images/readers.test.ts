// What other programs than QEMU read of images that were written here: 7-Zip every byte of each format, libqcow the headers.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import type { ImageCreateOptions } from '../../../lib/index.js'
import { makeFolder } from '../../support/folder.js'
import { openRuntime } from '../../support/producer.js'
import { program, qemuImg, qemuIo } from '../../support/qemu.js'

const kinds: readonly (readonly [name: string, options: object])[] = [
  ['a.qcow2', {}],
  ['a.qcow2', { clusterSize: 512 }],
  ['a.qcow2', { clusterSize: '2M' }],
  ['a.qcow2', { compat: '0.10' }],
  ['a.qcow2', { refcountBits: 1, lazyRefcounts: true }],
  ['a.qcow2', { refcountBits: 64 }],
  ['a.qcow2', { compress: true }],
  ['a.vmdk', {}],
  ['a.vmdk', { subformat: 'monolithicFlat' }],
  ['a.vmdk', { subformat: 'twoGbMaxExtentSparse' }],
  ['a.vmdk', { subformat: 'twoGbMaxExtentFlat' }],
  ['a.vmdk', { subformat: 'streamOptimized' }],
  ['a.vhd', {}],
  ['a.vhd', { subformat: 'fixed' }],
  ['a.vhdx', {}],
  ['a.vhdx', { subformat: 'fixed' }],
  ['a.vhdx', { blockSize: '1M' }],
]

test.each(kinds)('I6: 7-Zip reads every byte of %s with %j', async (name, options) => {
  const folder = makeFolder()
  await qemuImg('create', '-q', '-f', 'raw', folder('source'), '24M')
  await qemuIo(folder('source'), ['write -P 3 1M 3M', 'write -P 4 20M 300k', 'write -P 5 25165312 512'], 'raw')
  const format = name.slice(name.indexOf('.') + 1) as ImageCreateOptions['format']
  await openRuntime().images.convert(folder('source'), folder(name), { sourceFormat: 'raw', format, ...options })
  const hash = createHash('sha256')
  const reader = execFile('7zz', ['e', '-so', folder(name)], { encoding: 'buffer', maxBuffer: 2 ** 26 })
  reader.stdout?.on('data', (chunk) => hash.update(chunk))
  expect(await once(reader, 'close')).toEqual([0, null])
  expect(hash.digest('hex')).toBe(
    createHash('sha256')
      .update(readFileSync(folder('source')))
      .digest('hex'),
  )
})

test.each([{}, { clusterSize: 512 }, { compat: '0.10' as const }, { refcountBits: 1 as const }])(
  'I6: libqcow knows a qcow2 of ours with %j, and its size',
  async (options) => {
    const path = makeFolder()('disk.qcow2')
    const { virtualBytes } = await openRuntime().images.create(path, { format: 'qcow2', size: '5G', ...options })
    const { code, stdout, stderr } = await program('qcowinfo', [path])
    expect(code, stderr).toBe(0)
    expect(stdout).toContain(`(${virtualBytes} bytes)`)
    expect(stdout).toMatch(new RegExp(`Format version\\s*: ${'compat' in options ? 2 : 3}`))
  },
)
