// biome for TypeScript, clang-tidy for C++ (one batch of files a core), tsc for the tests' own types. With --analyze clang's path-sensitive checks
// run too, which take three times as long as all the others.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { attempt, bin, root } from './shell.mjs'

const codes = [
  attempt(process.execPath, [bin('@biomejs/biome', 'bin/biome'), 'lint', '--error-on-warnings']),
  attempt(process.execPath, [bin('typescript', 'bin/tsc'), '-p', 'tsconfig.test.json']),
  await tidy(),
]
process.exit(Math.max(...codes))

/** What the release compiles, each file once: those that are compiled together are read together, which is much faster. */
function batches() {
  const commands = JSON.parse(readFileSync(join(root, 'build/Release/compile_commands.json'), 'utf8'))
  const seen = new Set()
  return commands
    .map(({ file }) => file)
    .filter((file) => {
      const parts = file.endsWith('.cxx') ? readFileSync(file, 'utf8').match(/(?<=#include ").*(?=")/g) : [file]
      const fresh = parts.filter((part) => !seen.has(part))
      for (const part of fresh) seen.add(part)
      return fresh.length > 0
    })
}

async function tidy() {
  const sources = batches()
  const more = process.argv.includes('--analyze') ? ['--checks=clang-analyzer-*'] : []
  let worst = 0
  const worker = async () => {
    for (let file = sources.pop(); file; file = sources.pop()) {
      // The release is built by g++, which knows nothing of clang's thread safety analysis.
      const child = spawn(
        'clang-tidy-19',
        [
          '-p',
          'build/Release',
          '--quiet',
          '--extra-arg=-Wthread-safety',
          '--extra-arg=-Wno-unknown-warning-option',
          ...more,
          file,
        ],
        {
          cwd: root,
          stdio: ['ignore', 'pipe', 'ignore'],
        },
      )
      let text = ''
      child.stdout.on('data', (chunk) => {
        text += chunk
      })
      const [code] = await once(child, 'close')
      if (code !== 0) console.error(text)
      worst = Math.max(worst, code ?? 1)
    }
  }
  await Promise.all(cpus().map(worker))
  return worst
}
