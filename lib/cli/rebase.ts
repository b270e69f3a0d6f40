// sluicebox rebase: moves an overlay to another backing, and says what that took.
import { OUTPUT, parse, UsageError, wantsJson } from './arguments.js'
import { formatOf, showFormat } from './formats.js'
import { oneFile } from './image/one-file.js'
import { startBar } from './progress.js'
import { besideFile, type Command } from './tool.js'

export const rebase: Command = {
  usage: '-b BACKING [-f FORMAT] [-F BACKING_FORMAT] [-u] [-q] [-p] [--output human|json] IMAGE',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...OUTPUT,
      backing: { type: 'string', short: 'b' },
      'backing-format': { type: 'string', short: 'F' },
      format: { type: 'string', short: 'f' },
      unsafe: { type: 'boolean', short: 'u' },
      quiet: { type: 'boolean', short: 'q' },
      progress: { type: 'boolean', short: 'p' },
    })
    const json = wantsJson(values.output)
    const file = oneFile(positionals)
    const { backing } = values
    if (backing === undefined) throw new UsageError("rebase: name the new backing with -b, or detach with -b ''")
    const bar = startBar(tool.io, values.progress, values.quiet || json)
    const result = await tool.withImages({ named: [file, besideFile(file, backing)], allowed: allowPaths }, (images) =>
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
    if (json) {
      tool.print(
        JSON.stringify({
          overlay: file,
          overlay_format: showFormat(result.format),
          mode: result.mode,
          clusters_copied: result.clustersCopied,
          bytes_copied: result.bytesCopied,
          ...(result.to !== null && { new_backing: result.to }),
        }),
      )
    } else if (!values.quiet) {
      tool.print(backing === '' ? 'Image detached.' : 'Image rebased.')
    }
    return 0
  },
}
