// sluicebox image rebase: moves an overlay to another backing, and says nothing when that is done.
import { checkCache, parse, REASONS, REFUSED, refuse, UsageError } from '../arguments.js'
import { formatOf } from '../formats.js'
import { startBar } from '../progress.js'
import { besideFile, type Command } from '../tool.js'
import { oneFile } from './one-file.js'

export const rebase: Command = {
  usage: '[-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...REFUSED,
      quiet: { type: 'boolean', short: 'q' },
      format: { type: 'string', short: 'f' },
      backing: { type: 'string', short: 'b' },
      'backing-format': { type: 'string', short: 'F' },
      unsafe: { type: 'boolean', short: 'u' },
      progress: { type: 'boolean', short: 'p' },
      cache: { type: 'string', short: 't' },
      'src-cache': { type: 'string', short: 'T' },
      'force-share': { type: 'boolean', short: 'U' },
    })
    refuse(values, { ...REASONS, 'force-share': 'an image that others write to cannot be moved' })
    checkCache(values.cache, values['src-cache'])
    const file = oneFile(positionals)
    const { backing } = values
    if (backing === undefined) throw new UsageError("rebase: name the new backing with -b, or detach with -b ''")
    const bar = startBar(tool.io, values.progress, values.quiet)
    await tool.withImages({ named: [file, besideFile(file, backing)], allowed: allowPaths }, (images) =>
      images.rebase(file, {
        backing,
        backingFormat: formatOf(values['backing-format']),
        format: formatOf(values.format),
        mode: values.unsafe ? 'unsafe' : 'safe',
        onProgress: bar.onProgress,
        signal: tool.io.signal,
      }),
    )
    bar.finish()
    return 0
  },
}
