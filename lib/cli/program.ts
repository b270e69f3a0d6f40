// sluicebox: which command was meant, and what its failure is told and exits as.
import { SluiceboxError } from '../errors.js'
import { CommandError, UsageError } from './arguments.js'
import { imageCommands } from './image/commands.js'
import type { Io } from './io.js'
import { rebase } from './rebase.js'
import { type Command, describe, NAME, Tool } from './tool.js'
import { version } from './version.js'

const usage = (): string => `usage: ${NAME} COMMAND [options]

Disk images:
  rebase ${rebase.usage}
  image COMMAND, with the options and the output of qemu-img:
${Object.entries(imageCommands)
  .map(([name, { usage }]) => `    ${name} ${usage}`)
  .join('\n')}

Everywhere: --allow-path DIR (any number of times), or directories in SLUICEBOX_ALLOW_PATHS, separated by colons:
where images may name other files. Without it: in their own directories.`

/** The process's exit code. */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const tool = new Tool(io)
  try {
    const [first, ...rest] = args
    if (first === '--version' || first === '-V') {
      tool.print(`${NAME} ${version()}`)
      return 0
    }
    if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
      ;(first === undefined ? io.stderr : io.stdout).write(`${usage()}\n`)
      return first === undefined ? 1 : 0
    }
    const [command, own] = find(first, rest)
    if (own.length === 1 && (own[0] === '--help' || own[0] === '-h')) {
      tool.print(`usage: ${NAME} ${args.slice(0, args.length - 1).join(' ')} ${command.usage}`)
      return 0
    }
    return await command.run(own, tool)
  } catch (error) {
    if (io.signal.aborted) return 130
    tool.complain(tell(error))
    if (error instanceof UsageError) io.stderr.write(`Try '${NAME} --help' for more information\n`)
    return 1
  }
}

function find(name: string, rest: readonly string[]): [Command, readonly string[]] {
  if (name === 'rebase') return [rebase, rest]
  if (name !== 'image') throw new UsageError(`Command not found: ${name}`)
  const [op, ...args] = rest
  if (op === undefined) throw new UsageError('image: which of its commands?')
  if (Object.hasOwn(imageCommands, op)) return [imageCommands[op] as Command, args]
  throw new UsageError(`Command not found: image ${op}`)
}

function tell(error: unknown): string {
  if (error instanceof UsageError || error instanceof CommandError) return error.message
  if (SluiceboxError.is(error)) return describe(error)
  throw error
}
