// You will see a raw disk become a compressed qcow2 and back, with the same bytes, and a map of what it is made of.
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-convert-'))
await using runtime = new Runtime()
try {
  const { images } = runtime
  const [raw, packed, back] = [join(folder, 'disk.raw'), join(folder, 'disk.qcow2'), join(folder, 'back.raw')]
  const file = await open(raw, 'w')
  await file.truncate(2 ** 30)
  await file.write('a log line that repeats itself\n'.repeat(100_000), 2 ** 20)
  await file.close()

  const { requiredBytes } = await images.measure({ source: raw, sourceFormat: 'raw', format: 'qcow2' })
  const plain = (bytes: number) => `${(bytes / 1024).toFixed(0)} KiB`
  const info = await images.convert(raw, packed, { format: 'qcow2', sourceFormat: 'raw', compress: true })
  console.log(`measured ${plain(requiredBytes)}, compressed ${plain(info.allocatedBytes)}`)

  for await (const { start, length, present } of images.map(packed)) {
    console.log(`${plain(length)} from ${plain(start)}: ${present ? 'data' : 'a hole'}`)
  }
  await images.convert(packed, back, { format: 'raw' })
  const { identical } = await images.compare(raw, back, { formatA: 'raw', formatB: 'raw' })
  console.log(`the same bytes: ${identical}`)
} finally {
  await rm(folder, { recursive: true })
}
