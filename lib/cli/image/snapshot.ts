// sluicebox image snapshot: lists, makes, applies and removes the snapshots inside an image.
import { parse, REASONS, REFUSED, refuse, UsageError } from '../arguments.js'
import { formatOf } from '../formats.js'
import type { Command } from '../tool.js'
import { oneFile } from './one-file.js'
import { snapshotTable } from './snapshot-table.js'

export const snapshot: Command = {
  usage: '[-f fmt] [-q] [-U] [-l | -a snapshot | -c snapshot | -d snapshot] filename',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...REFUSED,
      format: { type: 'string', short: 'f' },
      quiet: { type: 'boolean', short: 'q' },
      list: { type: 'boolean', short: 'l' },
      apply: { type: 'string', short: 'a' },
      create: { type: 'string', short: 'c' },
      delete: { type: 'string', short: 'd' },
      'force-share': { type: 'boolean', short: 'U' },
    })
    refuse(values, REASONS)
    const file = oneFile(positionals)
    const { list, apply, create, delete: remove } = values
    if ([list || undefined, apply, create, remove].filter((each) => each !== undefined).length > 1)
      throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'")
    const options = { format: formatOf(values.format), signal: tool.io.signal }
    await tool.withImages({ named: [file], allowed: allowPaths }, async (images) => {
      if (create !== undefined) return images.snapshots.create(file, create, options)
      if (apply !== undefined) return images.snapshots.apply(file, apply, options)
      if (remove !== undefined) return images.snapshots.remove(file, remove, options)
      const { snapshots } = await images.info(file, { ...options, shared: values['force-share'] })
      if (snapshots.length > 0) tool.print(snapshotTable(snapshots).join('\n'))
    })
    return 0
  },
}
