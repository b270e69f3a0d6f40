// You will see a rebase cancelled at its first sign of progress, and an image that is none the worse for it.
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'

const folder = await mkdtemp(join(tmpdir(), 'sluicebox-cancel-'))
await using runtime = new Runtime()
try {
  const { images } = runtime
  for (const [name, byte] of [
    ['old.raw', 1],
    ['new.raw', 2],
  ] as const) {
    await using file = await open(join(folder, name), 'w')
    for (let i = 0; i < 256; i++) await file.write(Buffer.alloc(2 ** 20, byte))
  }
  const overlay = join(folder, 'overlay.qcow2')
  await images.create(overlay, { format: 'qcow2', backing: { path: 'old.raw', format: 'raw' } })

  const controller = new AbortController()
  const rebase = runtime.rebase(overlay, {
    backing: 'new.raw',
    backingFormat: 'raw',
    signal: controller.signal,
    onProgress: ({ done, total }) => done > 0 && controller.abort(new Error(`stopped at byte ${done} of ${total}`)),
  })
  await rebase.catch((error: Error) => console.log(`rejected with: ${error.message}`))

  const report = await images.check(overlay)
  const { backing } = await images.info(overlay)
  console.log(`still on ${backing?.path}, ${report.corruptions} corruptions, ${report.leaks} leaks`)
} finally {
  await rm(folder, { recursive: true })
}
