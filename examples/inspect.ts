// You will see what an image is, the chain it stands on, whether it is sound, and how a file that lies about itself is refused.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime, SluiceboxError } from 'sluicebox'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-inspect-'))
await using runtime = new Runtime()
try {
  const { images } = runtime
  await images.create(join(folder, 'base.raw'), { format: 'raw', size: '64M' })
  await images.create(join(folder, 'a.qcow2'), { format: 'qcow2', backing: { path: 'base.raw', format: 'raw' } })
  await images.create(join(folder, 'b.qcow2'), { format: 'qcow2', backing: { path: 'a.qcow2', format: 'qcow2' } })

  const info = await images.info(join(folder, 'b.qcow2'), { chain: true })
  for (const layer of info.chain ?? []) {
    console.log(
      `${layer.format.padEnd(5)} ${layer.virtualBytes} bytes, ${layer.allocatedBytes} on disk, backing: ${layer.backing?.path ?? 'none'}`,
    )
  }
  const report = await images.check(join(folder, 'b.qcow2'))
  console.log(report.ok ? 'sound' : `${report.corruptions} corruptions, ${report.leaks} leaks`)

  const lie = Buffer.alloc(104)
  lie.write('QFI\xfb', 'latin1')
  lie.writeUInt32BE(3, 4)
  lie.writeUInt32BE(16, 20) // cluster bits
  lie.writeUInt32BE(0xffffffff, 36) // an L1 table of 32 GiB
  lie.writeUInt32BE(104, 100) // header length
  await writeFile(join(folder, 'lie.qcow2'), lie)
  await images.info(join(folder, 'lie.qcow2')).catch((error) => {
    if (SluiceboxError.is(error)) console.log(`${error.code}: ${error.message}`)
  })
} finally {
  await rm(folder, { recursive: true })
}
