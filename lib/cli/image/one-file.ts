// The one file that most commands take.
import { CommandError, UsageError } from '../arguments.js'

export function oneFile(positionals: readonly string[]): string {
  const [file, ...more] = positionals
  if (file === undefined || more.length > 0) throw new UsageError('Expecting one image file name')
  if (file === '') throw new CommandError('an empty string is not the path of an image')
  return file
}
