import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = new URL('../../', import.meta.url).pathname
const readme = await readFile(join(root, 'README.md'), 'utf8')
const snippets = [...readme.matchAll(/```js\n([\s\S]*?)```(?:\n```\n([\s\S]*?)```)?/g)].map(
  ([, code = '', output]) => ({ code, output }),
)

/** Inside of the package, where 'sluicebox' resolves to itself. */
async function run(code: string): Promise<string> {
  const folder = await mkdtemp(join(root, 'build', 'readme-'))
  try {
    // A fragment is given the runtime that the first snippet makes.
    const whole = code.includes('new Runtime')
      ? code
      : `import { Runtime } from 'sluicebox'\nconst runtime = new Runtime()\n${code}\nawait runtime.close()`
    // As it stands: what the README calls js is what this Node must take.
    await writeFile(join(folder, 'snippet.mjs'), whole)
    const { SLUICEBOX_ADDON: _, ...env } = process.env
    const { stdout } = await promisify(execFile)(process.execPath, ['snippet.mjs'], { cwd: folder, env })
    return stdout
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('the README has snippets', () => expect(snippets.length).toBeGreaterThan(1))

test.each(snippets)('README snippet $# runs and prints what the README says', async ({ code, output }) => {
  const printed = await run(code)
  // Lines of two streams may change places.
  const linesOf = (text: string) => text.split('\n').sort()
  if (output !== undefined) expect(linesOf(printed)).toEqual(linesOf(output))
})
