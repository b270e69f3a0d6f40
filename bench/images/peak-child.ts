// One conversion in a process of its own: prints by how many bytes its memory grew at most.
import { readFileSync, writeFileSync } from 'node:fs'
import { Runtime } from 'sluicebox'

const [source = '', target = '', compress] = process.argv.slice(2)
const bytesOf = (key: string): number =>
  Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024

await using runtime = new Runtime()
await runtime.images.info(source)
// From here on the kernel keeps the highest anew.
writeFileSync('/proc/self/clear_refs', '5')
const before = bytesOf('VmRSS')
await runtime.images.convert(source, target, { format: 'qcow2', compress: compress === 'compress', overwrite: true })
console.log(bytesOf('VmHWM') - before)
