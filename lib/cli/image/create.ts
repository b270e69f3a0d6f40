// sluicebox image create: a new image; one that is there already is replaced, as by qemu-img.
import { CommandError, parse, REASONS, refuse, UsageError } from '../arguments.js'
import { formatOf } from '../formats.js'
import { parseSize } from '../size.js'
import { besideFile, type Command } from '../tool.js'
import { formatting, optionsOf, readNewImage } from './create-options.js'

export const create: Command = {
  usage: '[-q] [-f fmt] [-b backing_file -F backing_fmt [-u]] [-o options] filename [size]',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      object: { type: 'string', multiple: true },
      quiet: { type: 'boolean', short: 'q' },
      format: { type: 'string', short: 'f' },
      backing: { type: 'string', short: 'b' },
      'backing-format': { type: 'string', short: 'F' },
      unsafe: { type: 'boolean', short: 'u' },
      options: { type: 'string', short: 'o', multiple: true },
    })
    refuse(values, REASONS)
    const format = formatOf(values.format ?? 'raw')
    if (values.options?.some((list) => list === 'help' || list === '?')) {
      tool.print(optionsOf(format))
      return 0
    }
    const [file, asked, ...more] = positionals
    if (file === undefined || more.length > 0) throw new UsageError('Expecting an image file name and a size')
    const image = readNewImage(format, values.options ?? [])
    const backing = values.backing ?? image.backing
    const backingFormat = formatOf(values['backing-format']) ?? image.backingFormat
    const size = asked === undefined ? image.size : parseSize(asked)
    if ((backing === undefined || values.unsafe) && size === undefined)
      throw new CommandError(`${file}: Image creation needs a size parameter`)
    if (backing === undefined && backingFormat !== undefined)
      throw new CommandError(`${file}: -F takes a backing file, -b`)
    if (backing !== undefined && backingFormat === undefined)
      throw new CommandError(
        `${file}: the format of the backing file ${backing} must be named, with -F: it is not guessed`,
      )
    // Other formats record an id of their backing, so that qemu-img opens it in any case.
    const unchecked = values.unsafe === true && format === 'qcow2'
    const over =
      backing === undefined
        ? undefined
        : { path: backing, format: backingFormat as NonNullable<typeof backingFormat>, unchecked }
    const named = over ? [file, besideFile(file, over.path)] : [file]
    const made = await tool.withImages({ named, allowed: allowPaths }, (images) =>
      images.create(file, { ...image.options, size, backing: over, overwrite: true, signal: tool.io.signal }),
    )
    if (!values.quiet) tool.print(formatting(file, { ...image, backing, backingFormat }, size ?? made.virtualBytes))
    return 0
  },
}
