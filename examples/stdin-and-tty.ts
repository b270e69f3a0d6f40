// You will see sort fed piece by piece, and a prompt on a terminal that is answered.
import { Runtime } from 'sluicebox'

await using runtime = new Runtime()
await using box = await runtime.create()

const sort = await box.exec(['sort'], { stdin: 'pipe' })
for (const word of ['sluice', 'gate', 'box']) await sort.stdin.write(`${word}\n`)
await sort.stdin.end()
for await (const line of sort.lines()) console.log(`sorted: ${line}`)

const prompt = await box.exec(['sh', '-c', 'test -t 0 && stty size; read name; echo "hello $name"'], {
  tty: { cols: 100, rows: 30 },
  stdin: 'pipe',
})
console.log(`size: ${await prompt.waitForLine(/^\d+ \d+$/)}`)
await prompt.stdin.write('world\n')
console.log(`answer: ${await prompt.waitForLine('hello')}`)
console.log(`exit code ${(await prompt.wait()).exitCode}`)
