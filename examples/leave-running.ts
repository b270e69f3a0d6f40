// You will see a box run on after the runtime that made it, while nobody owns it, until the next one gets it and stops it.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'

const home = await mkdtemp(join(tmpdir(), 'leave-running-'))
try {
  const first = new Runtime({ home })
  const made = await first.create({ name: 'counter' })
  const count = 'n=0; while :; do n=$((n+1)); echo $n > /tmp/count; sleep 0.05; done'
  await made.shell(`setsid sh -c '${count}' > /dev/null 2>&1 &`)
  await first.close({ boxes: 'leave' })

  // As a later process would, of the same user and with the same home.
  await using next = new Runtime({ home })
  console.log((await next.list()).map(({ name, state }) => `${name} is ${state}`).join())
  const box = await next.get('counter')
  const counted = async () => Number((await box.run(['cat', '/tmp/count'])).stdout)
  const before = await counted()
  while ((await counted()) <= before) await new Promise((resolve) => setTimeout(resolve, 20))
  console.log('it counted on')
  console.log(`stopped: ${await box.stop()}`)
  await box.remove()
} finally {
  await rm(home, { recursive: true, force: true })
}
