// biome for TypeScript, clang-tidy for C++ (a file a core), tsc for the tests' own types. With --analyze clang's path-sensitive checks
// run too, which take three times as long as all the others.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpus } from 'node:os'
import { attempt, bin, capture, root } from './shell.mjs'

const codes = [
  attempt(process.execPath, [bin('@biomejs/biome', 'bin/biome'), 'lint', '--error-on-warnings']),
  attempt(process.execPath, [bin('typescript', 'bin/tsc'), '-p', 'tsconfig.test.json']),
  await tidy(),
]
process.exit(Math.max(...codes))

async function tidy() {
  const sources = capture('git', ['ls-files', '-co', '--exclude-standard', 'native/*.cc'])
    .stdout.split('\n')
    .filter((file) => file && !/^native\/(test|fuzz)\//.test(file))
  const more = process.argv.includes('--analyze') ? ['--checks=clang-analyzer-*'] : []
  let worst = 0
  const worker = async () => {
    for (let file = sources.pop(); file; file = sources.pop()) {
      // The release is built by g++, which knows nothing of clang's thread safety analysis.
      const child = spawn(
        'clang-tidy-19',
        ['-p', 'build/Release', '--quiet', '--extra-arg=-Wthread-safety', ...more, file],
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
