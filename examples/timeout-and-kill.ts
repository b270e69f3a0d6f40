// You will see a program that runs out of time, one that ignores a polite signal, and a missing one, each told apart.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime, SluiceboxError } from 'sluicebox'

const home = await mkdtemp(join(tmpdir(), 'sluicebox-kill-'))
try {
  await using runtime = new Runtime({ home })
  await using box = await runtime.create()

  const why = (error: unknown) => console.log(SluiceboxError.is(error) ? `${error.code}: ${error.message}` : error)
  await box.run(['sleep', '60'], { timeoutMs: 100 }).catch(why)

  const stubborn = await box.exec(['sh', '-c', 'trap "" TERM; echo ready; sleep 60'])
  await stubborn.waitForLine('ready')
  await stubborn.kill('SIGTERM', { forceAfterMs: 100 })
  const { signal, forced } = await stubborn.wait()
  console.log(`ended by ${signal}, forced: ${forced}`)

  await box.run(['no-such-program']).catch(why)
} finally {
  await rm(home, { recursive: true })
}
