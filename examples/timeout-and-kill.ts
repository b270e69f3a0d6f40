// You will see a program run out of its time with its output kept, one killed, and one that would not go without force.
import { ExecTimeoutError, Runtime } from 'sluicebox'

await using runtime = new Runtime()
await using box = await runtime.create()

try {
  await box.run(['sh', '-c', 'echo begun; exec sleep 1000'], { timeoutMs: 3000 })
} catch (error) {
  if (!(error instanceof ExecTimeoutError)) throw error
  console.log(`${error.code}: it said "${error.result.stdout}", and was ended by ${error.result.signal}`)
}

const sleep = await box.exec(['sleep', '1000'])
console.log(`killed: ${await sleep.kill()}, by ${(await sleep.wait()).signal}`)

const stubborn = await box.exec(['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.1; done'])
await stubborn.waitForLine('ready')
await stubborn.kill('SIGTERM', { forceAfterMs: 100 })
const { signal, forced } = await stubborn.wait()
console.log(`stubborn: ${signal}, forced: ${forced}, killed again: ${await stubborn.kill()}`)
