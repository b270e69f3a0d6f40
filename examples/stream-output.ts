// You will see a program's output line by line as it is written, both streams, and then how it ended.
import { Runtime } from 'sluicebox'

await using runtime = new Runtime()
await using box = await runtime.create()

const script = 'for n in 1 2 3; do echo "step $n"; sleep 0.1; done; echo "no step 4" >&2; exit 3'
const execution = await box.exec(['sh', '-c', script])
for await (const { from, line } of execution.lines({ from: 'all' })) console.log(`${from}: ${line}`)

const { exitCode, durationMs } = await execution.wait()
console.log(`exit code ${exitCode} after ${durationMs >= 300 ? 'three steps' : 'too short a time'}`)

const { stdout } = await box.run(['sh', '-c', 'echo $((6 * 7))'])
console.log(`collected: ${stdout}`)
