// You will see a program fed through a pipe, and one that believes that it talks to a person.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Runtime } from 'sluicebox'

const home = await mkdtemp(join(tmpdir(), 'sluicebox-stdin-'))
try {
  await using runtime = new Runtime({ home })
  await using box = await runtime.create()

  const { stdout } = await box.run(['sort'], { input: 'pear\napple\nfig\n' })
  console.log(`sorted: ${stdout.split('\n').join(', ')}`)

  const script = 'stty size; printf "name? "; read name; echo "hello $name"'
  const dialog = await box.exec(['sh', '-c', script], { stdin: 'pipe', tty: { cols: 100, rows: 30 } })
  await dialog.waitForLine(/30 100/).then((size) => console.log(`the terminal is ${size.trim()}`))
  await dialog.stdin.write('Ada\n')
  console.log(`it said: ${(await dialog.waitForLine(/^hello /)).trim()}`)
  console.log(`exit code ${(await dialog.wait()).exitCode}`)
} finally {
  await rm(home, { recursive: true })
}
