// Checks the formatting of everything, or with --write mends it.
import { attempt, bin, capture } from './shell.mjs'

const write = process.argv.includes('--write')
const sources = capture('git', ['ls-files', '-co', '--exclude-standard', 'native/*.h', 'native/*.cc'])
  .stdout.split('\n')
  .filter(Boolean)
const codes = [
  attempt(process.execPath, [bin('@biomejs/biome', 'bin/biome'), 'format', ...(write ? ['--write'] : [])]),
  attempt('clang-format-19', [...(write ? ['-i'] : ['--dry-run', '-Werror']), ...sources]),
]
process.exit(Math.max(...codes))
