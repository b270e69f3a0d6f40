// sluicebox image resize: makes a disk larger, or with --shrink smaller.
import { CommandError, choice, parse, REASONS, REFUSED, refuse, UsageError } from '../arguments.js'
import { formatOf } from '../formats.js'
import { parseSize } from '../size.js'
import type { Command } from '../tool.js'

export const resize: Command = {
  usage: '[-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size',
  async run(args, tool) {
    // '-1G' is a size, and the last argument: options come before.
    const last = args.at(-1) ?? ''
    const relative = /^[+-]\d/.test(last)
    const { values, positionals, allowPaths } = parse(relative ? args.slice(0, -1) : args, {
      ...REFUSED,
      quiet: { type: 'boolean', short: 'q' },
      format: { type: 'string', short: 'f' },
      shrink: { type: 'boolean' },
      preallocation: { type: 'string' },
    })
    refuse(values, REASONS)
    const [file, size, ...more] = relative ? [...positionals, last] : positionals
    if (file === undefined || size === undefined || more.length > 0)
      throw new UsageError('Expecting image file name and size')
    const format = formatOf(values.format)
    const preallocation = choice('preallocation', values.preallocation, ['off', 'metadata', 'falloc', 'full'] as const)
    await tool.withImages({ named: [file], allowed: allowPaths }, async (images) => {
      const { virtualBytes: now } = await images.info(file, { format, signal: tool.io.signal })
      const wanted = relative ? now + (size.startsWith('-') ? -1 : 1) * parseSize(size.slice(1)) : parseSize(size)
      if (wanted < 0) throw new CommandError(`${file}: it has ${now} bytes, which cannot become ${wanted}`)
      if (wanted < now && !values.shrink)
        throw new CommandError(
          'Use the --shrink option to perform a shrink operation: all data beyond the new end will be deleted',
        )
      await images.resize(file, wanted, { format, preallocation, shrink: values.shrink, signal: tool.io.signal })
    })
    if (!values.quiet) tool.print('Image resized.')
    return 0
  },
}
