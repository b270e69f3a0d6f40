// One side of one round, in a process of its own: what one side leaves behind in the heap or in compiled code cannot help or hurt
// the other.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const testAddon = fileURLToPath(new URL('../build/Release/sluicebox_test.node', import.meta.resolve('sluicebox')))

/** Runs `module` with `spec` and gives what it reported. */
export function inChild<T>(module: URL, spec: object): Promise<T> {
  const child = fork(module, [JSON.stringify(spec)], { env: { ...process.env, SLUICEBOX_ADDON: testAddon } })
  return new Promise((resolve, reject) => {
    let result: { value: T } | undefined
    child.on('message', (value) => {
      result = { value: value as T }
    })
    child.on('error', reject)
    child.on('exit', (code, signal) => {
      if (result && code === 0) resolve(result.value)
      else reject(new Error(`${fileURLToPath(module)} ended with ${signal ?? code} for ${JSON.stringify(spec)}`))
    })
  })
}

/** In the child: what it is to do. */
export function task<T>(): T {
  return JSON.parse(process.argv[2] ?? '{}') as T
}

/** In the child: reports and ends. */
export function report(value: object): void {
  process.send?.(value, () => process.exit(0))
}
