#!/usr/bin/env node
// The program `sluicebox`.
import { main } from './program.js'

const abort = new AbortController()
// The first asks for an orderly end; the next one finds no handler, and ends the process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => abort.abort(new Error(signal)))
// Who reads no further than a line is no failure; what cannot be written for another reason is told, where that can be.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return
  process.stderr.write(`sluicebox: cannot write the output: ${error.message}\n`)
  process.exit(1)
})
process.stderr.on('error', () => {})
process.exitCode = await main(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: abort.signal,
})
