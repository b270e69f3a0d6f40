// You will see a golden image made: a base, what one overlay adds to it, a snapshot to go back to, and a file for others to start from.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-golden-'))
await using runtime = new Runtime()
try {
  const { images } = runtime
  const [base, work, golden] = [join(folder, 'base.qcow2'), join(folder, 'work.qcow2'), join(folder, 'golden.qcow2')]
  await images.create(base, { format: 'qcow2', size: '256M' })
  await images.create(work, { format: 'qcow2', backing: { path: 'base.qcow2', format: 'qcow2' } })

  await using disk = await images.open(work)
  await disk.write(1_000_000, Buffer.from('installed, and configured'))
  await disk.close()
  await images.snapshots.create(work, 'configured')

  const again = await images.open(work)
  await again.zero(1_000_000, 9)
  await again.close()
  await images.snapshots.apply(work, 'configured')
  await images.snapshots.remove(work, 'configured')

  const { virtualBytes, backing } = await images.convert(work, golden, { format: 'qcow2', compress: true })
  console.log(`golden: ${virtualBytes / 2 ** 20} MiB, backing: ${backing?.path ?? 'none'}`)
  const { identical } = await images.compare(work, golden)
  console.log(`reads as the overlay does: ${identical}`)
  await using copy = await images.open(golden, { readonly: true })
  console.log(`it holds: ${(await copy.read(1_000_000, 25)).toString()}`)
} finally {
  await rm(folder, { recursive: true })
}
