// What a command does its work with: the library's images, under the path policy of the command line.
import { realpathSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { SluiceboxError } from '../errors.js'
import type { Images } from '../image-types.js'
import { Runtime } from '../runtime.js'
import type { Io } from './io.js'

export const NAME = 'sluicebox'

export interface Command {
  /** After the command's own name. */
  readonly usage: string
  /** The exit code. */
  run(args: readonly string[], tool: Tool): Promise<number>
}

/** A path that is meant to be recorded in `file`: a relative one starts where that lies. */
export const besideFile = (file: string, path: string): string => resolve(dirname(file), path)

export interface Files {
  /** Every path that the command line names: where they lie is trusted, as without any --allow-path. */
  readonly named: readonly string[]
  /** Of --allow-path. */
  readonly allowed: readonly string[]
}

/** The library's options in its advice, and what they are called here. */
const OPTIONS = {
  'existing: true': '-n',
  'shared: true': '-U',
  'salvage: true': '--salvage',
  "sourceFormat: 'raw'": '-f raw',
}

/** In one line: what failed, on what, why, and what to do. */
export function describe({ message, hint, path }: SluiceboxError): string {
  // Not every message names the file, and a name with other characters was escaped there.
  const named = path === undefined || message.includes(path) || !/^[ -~]+$/.test(path)
  const advice = hint?.includes('allowPaths')
    ? 'if the image is trusted, allow the directory with --allow-path DIR or SLUICEBOX_ALLOW_PATHS'
    : Object.entries(OPTIONS).reduce((text, [option, here]) => text?.replace(option, here), hint)
  return `${named ? '' : `${path}: `}${message}${advice ? `: ${advice}` : ''}`
}

/** Where a symlink leads; what is not there yet leads nowhere. */
function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return resolve(path)
  }
}

export class Tool {
  readonly io: Io

  constructor(io: Io) {
    this.io = io
  }

  print(text: string): void {
    this.io.stdout.write(`${text}\n`)
  }

  complain(text: string): void {
    this.io.stderr.write(`${NAME}: ${text}\n`)
  }

  /** JSON as qemu-img indents it. */
  printJson(value: unknown): void {
    this.print(JSON.stringify(value, null, 4))
  }

  async withImages<T>(files: Files, work: (images: Images) => Promise<T>): Promise<T> {
    await using runtime = new Runtime({ allowPaths: this.#allowPaths(files) })
    return await work(runtime.images)
  }

  /** Undefined, for the library's own policy, unless it is to be widened. */
  #allowPaths({ named, allowed }: Files): string[] | undefined {
    const inEnvironment = (this.io.env.SLUICEBOX_ALLOW_PATHS ?? '').split(':').filter(Boolean)
    if (allowed.length + inEnvironment.length === 0) return undefined
    // A list limits what callers name as well, which is not what it is for here.
    const own = named.flatMap((path) => [dirname(resolve(path)), dirname(realPath(path))])
    return [...new Set([...allowed, ...inEnvironment].map((path) => resolve(path)).concat(own))]
  }
}
