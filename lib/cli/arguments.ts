// The arguments of one command: long and short options, values joined or apart, bundled flags, as getopt takes them.
import { parseArgs } from 'node:util'

/** The command was called wrongly: the message, and where to read more. */
export class UsageError extends Error {}

/** What was wrong with an otherwise well-formed call: the message alone. */
export class CommandError extends Error {}

interface Option {
  readonly type: 'string' | 'boolean'
  readonly short?: string
  readonly multiple?: boolean
}
export type Spec = Readonly<Record<string, Option>>

/** Every command has these. */
const COMMON = {
  help: { type: 'boolean', short: 'h' },
  'allow-path': { type: 'string', multiple: true },
} as const satisfies Spec

type Value<D extends Option> = D extends { type: 'boolean' }
  ? boolean | undefined
  : D extends { multiple: true }
    ? string[] | undefined
    : string | undefined

export interface Arguments<S extends Spec> {
  readonly values: { [K in keyof S]: Value<S[K]> }
  readonly positionals: readonly string[]
  readonly help: boolean
  /** Directories of --allow-path. */
  readonly allowPaths: readonly string[]
}

export function parse<const S extends Spec>(args: readonly string[], spec: S): Arguments<S> {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { ...spec, ...COMMON },
      allowPositionals: true,
    })
    const common = values as { help?: boolean; 'allow-path'?: string[] }
    return {
      values: values as unknown as Arguments<S>['values'],
      positionals,
      help: common.help === true,
      allowPaths: common['allow-path'] ?? [],
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (!code?.startsWith('ERR_PARSE_ARGS_')) throw error
    // The first sentence: the rest is advice for whoever wrote the specification.
    throw new UsageError((message.split(/\. |\n/)[0] as string).replace(/\.$/, ''))
  }
}

/** One of `known`, or absent. */
export function choice<T extends string>(name: string, value: string | undefined, known: readonly T[]): T | undefined {
  if (value === undefined || known.includes(value as T)) return value as T | undefined
  throw new CommandError(`${name} '${value}' is not one of ${known.join(', ')}`)
}

/** The options that qemu-img has and this program does not: refused by name rather than ignored. */
export function refuse(values: Record<string, unknown>, reasons: Readonly<Record<string, string>>): void {
  for (const [name, reason] of Object.entries(reasons)) {
    if (values[name] !== undefined) throw new CommandError(`--${name} is not supported: ${reason}`)
  }
}

export const REFUSED = {
  object: { type: 'string', multiple: true },
  'image-opts': { type: 'boolean' },
} as const satisfies Spec
export const REASONS = {
  object: 'there are no secrets or throttles here',
  'image-opts': 'name a file, and its format with -f',
} as const

const CACHE_MODES = ['none', 'writeback', 'unsafe', 'directsync', 'writethrough'] as const
/** Accepted so that scripts run: what is written is durable when a command ends, whatever the mode. */
export function checkCache(...modes: (string | undefined)[]): void {
  for (const mode of modes) choice('cache mode', mode, CACHE_MODES)
}

export const OUTPUTS = ['human', 'json'] as const
export const OUTPUT = { output: { type: 'string' } } as const satisfies Spec
export function wantsJson(output: string | undefined): boolean {
  return choice('--output', output, OUTPUTS) === 'json'
}
