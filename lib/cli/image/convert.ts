// sluicebox image convert: writes what a guest reads of one image into a new one; a target that is there already is
// replaced when the new one is whole, or with -n, as a block device is that becomes raw, written over in place.
import { statSync } from 'node:fs'
import type { ConvertIntoOptions, ConvertOptions, ConvertResult, ConvertSource, DiskFormat } from '../../image-types.js'
import { CommandError, checkCache, parse, REASONS, REFUSED, refuse, UsageError } from '../arguments.js'
import { formatOf } from '../formats.js'
import { startBar } from '../progress.js'
import { parseSize } from '../size.js'
import { besideFile, type Command, type Tool } from '../tool.js'
import { readNewImage } from './create-options.js'
import { snapshotOf } from './snapshot-name.js'

const MAX_PARALLEL = 16

export const convert: Command = {
  usage:
    '[-c] [-p] [-q] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file -F backing_fmt] [-o options] ' +
    '[-l snapshot_param] [-S sparse_size] [-m threads] [-n [--target-is-zero]] [-U] [-W] [-C] [--salvage] filename [filename2 [...]] output_filename',
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
      'rate-limit': 'use ionice',
      'target-image-opts': 'name a file, and its format with -O',
      bitmaps: 'bitmaps are not copied',
    })
    checkCache(values.cache, values['src-cache'])
    const [sources, target] = [positionals.slice(0, -1), positionals.at(-1)]
    if (sources.length === 0 || target === undefined) throw new UsageError('Must specify image file name')
    const format = formatOf(values['target-format'] ?? 'raw')
    const existing = values['no-create'] === true || (format === 'raw' && isBlockDevice(target))
    if (values['target-is-zero'] && !values['no-create'])
      throw new CommandError('--target-is-zero requires use of -n flag')
    const bar = startBar(tool.io, values.progress, values.quiet)
    const how: ConvertSource = {
      sourceFormat: formatOf(values.format),
      shared: values['force-share'],
      snapshot: snapshotOf(values.snapshot),
      salvage: values.salvage,
      parallel: values.parallel === undefined ? undefined : threads(values.parallel),
      sparseSize: values['sparse-size'] === undefined ? undefined : parseSize(values['sparse-size']),
      onProgress: bar.onProgress,
      signal: tool.io.signal,
    }
    const options = existing ? existingTarget(format, values) : newTarget(format, values)
    const backing = 'backing' in options && options.backing ? [besideFile(target, options.backing.path)] : []
    const converted = await tool.withImages(
      { named: [...sources, target, ...backing], allowed: allowPaths },
      // One call, of two signatures.
      (images) =>
        'existing' in options
          ? images.convert(sources, target, { ...options, ...how })
          : images.convert(sources, target, { ...options, ...how }),
    )
    bar.finish()
    if (!values.quiet) tellUnreadable(converted, tool)
    return 0
  },
}

function tellUnreadable({ unreadable }: ConvertResult, tool: Tool): void {
  if (!unreadable?.bytes) return
  for (const { start, length } of unreadable.parts)
    tool.complain(`warning: ${length} bytes at offset ${start} could not be read, and are zeros`)
  const told = unreadable.parts.reduce((sum, { length }) => sum + length, 0)
  if (told < unreadable.bytes) tool.complain(`warning: ${unreadable.bytes - told} bytes in more places as well`)
  tool.complain(`warning: ${unreadable.bytes} bytes are lost`)
}

interface TargetValues {
  readonly options?: readonly string[]
  readonly backing?: string
  readonly 'backing-format'?: string
  readonly compress?: boolean
  readonly 'target-is-zero'?: boolean
}

function newTarget(format: DiskFormat, values: TargetValues): ConvertOptions {
  const image = readNewImage(format, values.options ?? [])
  const options: ConvertOptions = {
    ...image.options,
    size: image.size,
    overwrite: true,
    compress: values.compress,
  }
  const path = values.backing ?? image.backing
  if (path === undefined && values['backing-format'] !== undefined)
    throw new CommandError('-F takes a backing file, -B')
  if (path === undefined) return options
  const backingFormat = formatOf(values['backing-format']) ?? image.backingFormat
  if (backingFormat === undefined)
    throw new CommandError(`the format of the backing file ${path} must be named, with -F: it is not guessed`)
  return { ...options, backing: { path, format: backingFormat } }
}

/** What is read of it is the source's whatever it stands on, so that -B changes nothing. */
function existingTarget(format: DiskFormat, values: TargetValues): ConvertIntoOptions {
  if (values.options) throw new CommandError('-o has no effect when skipping image creation')
  if (values.compress) throw new CommandError('-c takes a new image: what one holds already is not compressed')
  return { existing: true, format, targetIsZero: values['target-is-zero'] }
}

/** What cannot be asked is none: the conversion tells why. */
function isBlockDevice(path: string): boolean {
  try {
    return statSync(path).isBlockDevice()
  } catch {
    return false
  }
}

function threads(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count >= 1 && count <= MAX_PARALLEL) return count
  throw new CommandError(`invalid number of threads '${text}': 1 to ${MAX_PARALLEL}`)
}
