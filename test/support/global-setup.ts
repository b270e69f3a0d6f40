// The suite's end: nothing that a test made may be left behind.
import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'

export default async function setup(): Promise<() => Promise<void>> {
  const before = new Set(await ours())
  return async () => {
    const left = (await ours()).filter((name) => !before.has(name))
    if (left.length > 0) throw new Error(`the tests left these in ${tmpdir()}: ${left.join(', ')}`)
  }
}

const ours = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('sluicebox-test-'))
