// Before npm packs or publishes: a package without its native half would install well and load nothing.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './shell.mjs'

const wanted = ['dist/index.js', 'prebuilds/linux-x64/sluicebox.node', 'prebuilds/linux-arm64/sluicebox.node']
const missing = wanted.filter((file) => !existsSync(join(root, file)))
if (missing.length > 0) {
  console.error(
    `nothing to pack: ${missing.join(', ')} missing; Sluicebox is installed from a checkout (README.md, "Install")`,
  )
  process.exit(1)
}
