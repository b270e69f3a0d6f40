// sluicebox image convert: writes what a guest reads of one image into a new one; a target that is there already is
// replaced when the new one is whole.
import { CommandError, checkCache, parse, REASONS, REFUSED, refuse, UsageError } from '../arguments.js'
import { formatOf } from '../formats.js'
import { startBar } from '../progress.js'
import { parseSize } from '../size.js'
import { besideFile, type Command } from '../tool.js'
import { readNewImage } from './create-options.js'
import { snapshotOf } from './snapshot-name.js'

const MAX_PARALLEL = 16

export const convert: Command = {
  usage:
    '[-c] [-p] [-q] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file -F backing_fmt] [-o options] ' +
    '[-l snapshot_param] [-S sparse_size] [-m threads] [-W] [-C] filename output_filename',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...REFUSED,
      compress: { type: 'boolean', short: 'c' },
      progress: { type: 'boolean', short: 'p' },
      quiet: { type: 'boolean', short: 'q' },
      'no-create': { type: 'boolean', short: 'n' },
      format: { type: 'string', short: 'f' },
      cache: { type: 'string', short: 't' },
      'src-cache': { type: 'string', short: 'T' },
      'target-format': { type: 'string', short: 'O' },
      backing: { type: 'string', short: 'B' },
      'backing-format': { type: 'string', short: 'F' },
      options: { type: 'string', short: 'o', multiple: true },
      snapshot: { type: 'string', short: 'l' },
      'sparse-size': { type: 'string', short: 'S' },
      parallel: { type: 'string', short: 'm' },
      'rate-limit': { type: 'string', short: 'r' },
      'force-share': { type: 'boolean', short: 'U' },
      // How it is written is this program's own affair.
      'out-of-order': { type: 'boolean', short: 'W' },
      'copy-range': { type: 'boolean', short: 'C' },
      'target-image-opts': { type: 'boolean' },
      'target-is-zero': { type: 'boolean' },
      salvage: { type: 'boolean' },
      bitmaps: { type: 'boolean' },
    })
    refuse(values, {
      ...REASONS,
      'no-create': 'the target is a new file, which appears when it is whole',
      'rate-limit': 'use ionice',
      'force-share': 'what is read while it is written is no image of any moment',
      'target-image-opts': 'name a file, and its format with -O',
      'target-is-zero': 'the target is a new file',
      salvage: 'what cannot be read is an error',
      bitmaps: 'bitmaps are not copied',
    })
    checkCache(values.cache, values['src-cache'])
    const [source, target, ...more] = positionals
    if (source === undefined || target === undefined) throw new UsageError('Must specify image file name')
    if (more.length > 0) throw new CommandError('convert takes one source: several are not joined')
    const image = readNewImage(formatOf(values['target-format'] ?? 'raw'), values.options ?? [])
    const backing = values.backing ?? image.backing
    const backingFormat = formatOf(values['backing-format']) ?? image.backingFormat
    if (backing !== undefined && backingFormat === undefined)
      throw new CommandError(`the format of the backing file ${backing} must be named, with -F: it is not guessed`)
    const named = [source, target, ...(backing === undefined ? [] : [besideFile(target, backing)])]
    const bar = startBar(tool.io, values.progress, values.quiet)
    await tool.withImages({ named, allowed: allowPaths }, (images) =>
      images.convert(source, target, {
        ...image.options,
        size: image.size,
        overwrite: true,
        ...(backing !== undefined && backingFormat && { backing: { path: backing, format: backingFormat } }),
        sourceFormat: formatOf(values.format),
        snapshot: snapshotOf(values.snapshot),
        compress: values.compress,
        parallel: values.parallel === undefined ? undefined : threads(values.parallel),
        sparseSize: values['sparse-size'] === undefined ? undefined : parseSize(values['sparse-size']),
        onProgress: bar.onProgress,
        signal: tool.io.signal,
      }),
    )
    bar.finish()
    return 0
  },
}

function threads(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count >= 1 && count <= MAX_PARALLEL) return count
  throw new CommandError(`invalid number of threads '${text}': 1 to ${MAX_PARALLEL}`)
}
