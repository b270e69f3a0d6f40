// You will see an overlay move to a new base in safe mode: its guest reads the same bytes before and after.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-rebase-'))
await using runtime = new Runtime()
try {
  const { images } = runtime
  await images.create(join(folder, 'debian-12.0.qcow2'), { format: 'qcow2', size: '1G' })
  await images.create(join(folder, 'debian-12.1.qcow2'), { format: 'qcow2', size: '1G' })
  const overlay = join(folder, 'web-1.qcow2')
  await images.create(overlay, { format: 'qcow2', backing: { path: 'debian-12.0.qcow2', format: 'qcow2' } })

  const result = await runtime.rebase(overlay, {
    backing: 'debian-12.1.qcow2',
    onProgress: ({ phase, done, total, unit }) => console.log(`${phase}: ${done} of ${total} ${unit}`),
  })
  console.log(`${result.from} -> ${result.to}, ${result.clustersCopied} clusters copied`)

  const { backing } = await images.info(overlay)
  console.log(`the overlay now names ${backing?.path}, which ${backing?.exists ? 'is there' : 'is missing'}`)
} finally {
  await rm(folder, { recursive: true })
}
