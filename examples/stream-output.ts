// You will see a build in a box, line by line as it happens: errors apart from output, and how it ended.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'

const home = await mkdtemp(join(tmpdir(), 'sluicebox-stream-'))
try {
  await using runtime = new Runtime({ home })
  await using box = await runtime.create()

  const build = await box.exec([
    'sh',
    '-c',
    'for step in 1 2 3; do echo "step $step of 3"; done; echo "1 warning" >&2; exit 4',
  ])
  for await (const { from, line } of build.lines({ from: 'all' })) console.log(`${from}: ${line}`)
  const { exitCode, durationMs, usage } = await build.wait()
  console.log(`exit code ${exitCode}; took time: ${durationMs > 0}; memory told: ${(usage?.maxRssBytes ?? 0) > 0}`)
} finally {
  await rm(home, { recursive: true })
}
