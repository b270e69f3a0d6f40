// Running other programs from the scripts: inherited output, exit codes never lost.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Ends this script with the program's exit code when that is not 0. */
export function run(program, args, options = {}) {
  const code = attempt(program, args, options)
  if (code !== 0) {
    console.error(`\n${[program, ...args].join(' ')} ended with ${code}`)
    process.exit(code)
  }
}

export function attempt(program, args, options = {}) {
  const { status, error, signal } = spawnSync(program, args, { cwd: root, stdio: 'inherit', ...options })
  if (error) console.error(`${program}: ${error.message}`)
  if (signal) console.error(`${program}: ended by ${signal}`)
  return status ?? 1
}

/** Its output as text, with the exit code. */
export function capture(program, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 2 ** 20,
    ...options,
  })
  return { code: status ?? 1, stdout: stdout ?? '', stderr: stderr ?? String(error ?? '') }
}

/** The script behind a package's bin, run by this Node. Not resolved: a package need not export it. */
export function bin(packageName, path) {
  return join(root, 'node_modules', packageName, path)
}

export function node(script, args, options) {
  run(process.execPath, [script, ...args], options)
}
