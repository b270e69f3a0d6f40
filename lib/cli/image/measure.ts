// sluicebox image measure: how large a file a conversion would make.
import { CommandError, OUTPUT, parse, REASONS, REFUSED, refuse, UsageError, wantsJson } from '../arguments.js'
import { formatOf } from '../formats.js'
import { parseSize } from '../size.js'
import type { Command } from '../tool.js'
import { oneFile } from './one-file.js'

export const measure: Command = {
  usage: '[--output=ofmt] [-O output_fmt] [--size N | [-f fmt] filename]',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...OUTPUT,
      ...REFUSED,
      format: { type: 'string', short: 'f' },
      'output-format': { type: 'string', short: 'O' },
      options: { type: 'string', short: 'o', multiple: true },
      snapshot: { type: 'string', short: 'l' },
      size: { type: 'string' },
    })
    refuse(values, { ...REASONS, options: 'the defaults of create are measured', snapshot: 'convert it to see' })
    const json = wantsJson(values.output)
    const format = formatOf(values['output-format'] ?? 'raw')
    const { size } = values
    if (size !== undefined && positionals.length > 0)
      throw new UsageError('--size N cannot be used together with a filename')
    const file = size === undefined ? oneFile(positionals) : undefined
    const what =
      file === undefined ? { size: parseSize(size as string) } : { source: file, sourceFormat: formatOf(values.format) }
    if (format !== 'raw' && format !== 'qcow2') throw new CommandError(`the format ${format} cannot be measured`)
    const named = file === undefined ? [] : [file]
    const { requiredBytes, fullyAllocatedBytes } = await tool.withImages({ named, allowed: allowPaths }, (images) =>
      images.measure({ ...what, format, signal: tool.io.signal }),
    )
    if (json) tool.printJson({ required: requiredBytes, 'fully-allocated': fullyAllocatedBytes })
    else tool.print(`required size: ${requiredBytes}\nfully allocated size: ${fullyAllocatedBytes}`)
    return 0
  },
}
