// sluicebox image commit: writes an overlay's data into its backing.
import { checkCache, parse, REASONS, REFUSED, refuse } from '../arguments.js'
import { formatOf } from '../formats.js'
import { startBar } from '../progress.js'
import { besideFile, type Command } from '../tool.js'
import { oneFile } from './one-file.js'

export const commit: Command = {
  usage: '[-q] [-f fmt] [-t cache] [-b base] [-d] [-p] filename',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...REFUSED,
      quiet: { type: 'boolean', short: 'q' },
      format: { type: 'string', short: 'f' },
      base: { type: 'string', short: 'b' },
      drop: { type: 'boolean', short: 'd' },
      progress: { type: 'boolean', short: 'p' },
      cache: { type: 'string', short: 't' },
      'rate-limit': { type: 'string', short: 'r' },
    })
    refuse(values, { ...REASONS, 'rate-limit': 'use ionice' })
    checkCache(values.cache)
    const file = oneFile(positionals)
    const named = values.base === undefined ? [file] : [file, besideFile(file, values.base)]
    const bar = startBar(tool.io, values.progress, values.quiet)
    await tool.withImages({ named, allowed: allowPaths }, (images) =>
      images.commit(file, {
        format: formatOf(values.format),
        into: values.base,
        // Into a file further down nothing is emptied either: what lies between still shows it.
        emptyOverlay: !values.drop && values.base === undefined,
        onProgress: bar.onProgress,
        signal: tool.io.signal,
      }),
    )
    bar.finish()
    if (!values.quiet) tool.print('Image committed.')
    return 0
  },
}
