// sluicebox image measure: how large a file a conversion would make.
import type { MeasureOptions } from '../../image-types.js'
import { CommandError, OUTPUT, parse, REASONS, REFUSED, refuse, UsageError, wantsJson } from '../arguments.js'
import { formatOf } from '../formats.js'
import { parseSize } from '../size.js'
import type { Command } from '../tool.js'
import { readNewImage } from './create-options.js'
import { oneFile } from './one-file.js'
import { snapshotOf } from './snapshot-name.js'

export const measure: Command = {
  usage: '[--output=ofmt] [-O output_fmt] [-o options] [--size N | [-f fmt] [-l snapshot_param] [-U] filename]',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...OUTPUT,
      ...REFUSED,
      format: { type: 'string', short: 'f' },
      'output-format': { type: 'string', short: 'O' },
      options: { type: 'string', short: 'o', multiple: true },
      snapshot: { type: 'string', short: 'l' },
      size: { type: 'string' },
      'force-share': { type: 'boolean', short: 'U' },
    })
    refuse(values, REASONS)
    const json = wantsJson(values.output)
    const { size } = values
    if (size !== undefined && positionals.length > 0)
      throw new UsageError('--size N cannot be used together with a filename')
    if (size !== undefined && (values.snapshot ?? values.format) !== undefined)
      throw new UsageError('--size N cannot be used together with -f or -l')
    const file = size === undefined ? oneFile(positionals) : undefined
    const what =
      file === undefined
        ? { size: parseSize(size as string) }
        : {
            source: file,
            sourceFormat: formatOf(values.format),
            snapshot: snapshotOf(values.snapshot),
            shared: values['force-share'],
          }
    const { format, options, backing, backingFormat } = readNewImage(
      formatOf(values['output-format'] ?? 'raw'),
      values.options ?? [],
    )
    if (format !== 'raw' && format !== 'qcow2') throw new CommandError(`the format ${format} cannot be measured`)
    // It is not opened, so its format does not matter.
    const over = backing === undefined ? {} : { backing: { path: backing, format: backingFormat ?? 'raw' } }
    const measured = { ...options, ...over, ...what, signal: tool.io.signal } as MeasureOptions
    const named = file === undefined ? [] : [file]
    const { requiredBytes, fullyAllocatedBytes, bitmapsBytes } = await tool.withImages(
      { named, allowed: allowPaths },
      (images) => images.measure(measured),
    )
    const sizes = {
      ...(bitmapsBytes !== undefined && { bitmaps: bitmapsBytes }),
      required: requiredBytes,
      'fully-allocated': fullyAllocatedBytes,
    }
    if (json) tool.printJson(sizes)
    else {
      tool.print(`required size: ${requiredBytes}\nfully allocated size: ${fullyAllocatedBytes}`)
      if (bitmapsBytes !== undefined) tool.print(`bitmaps size: ${bitmapsBytes}`)
    }
    return 0
  },
}
