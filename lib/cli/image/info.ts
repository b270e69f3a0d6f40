// sluicebox image info: what an image is, as text or JSON.
import type { ImageInfo } from '../../image-types.js'
import { OUTPUT, parse, REASONS, REFUSED, refuse, wantsJson } from '../arguments.js'
import { formatOf, showFormat } from '../formats.js'
import { showSize } from '../size.js'
import type { Command } from '../tool.js'
import { beside, type Named, nameChain } from './chain-names.js'
import { oneFile } from './one-file.js'
import { snapshotsToJson, snapshotTable } from './snapshot-table.js'

export const info: Command = {
  usage: '[-f fmt] [--output=ofmt] [--backing-chain] [-U] filename',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...OUTPUT,
      ...REFUSED,
      format: { type: 'string', short: 'f' },
      'backing-chain': { type: 'boolean' },
      'force-share': { type: 'boolean', short: 'U' },
    })
    refuse(values, REASONS)
    const json = wantsJson(values.output)
    const file = oneFile(positionals)
    const format = formatOf(values.format)
    const whole = values['backing-chain'] === true
    const found = await tool.withImages({ named: [file], allowed: allowPaths }, (images) =>
      images.info(file, { format, chain: whole, shared: values['force-share'], signal: tool.io.signal }),
    )
    const chain = nameChain(file, whole ? (found.chain as ImageInfo[]) : [found])
    if (json) tool.printJson(whole ? chain.map(toJson) : toJson(chain[0] as Named))
    else tool.print(chain.map(toText).join('\n\n'))
    return 0
  },
}

/** What qemu-img tells of a format's own, which of two formats is nothing; files are named as they read from here. */
function specificOf({ name, image }: Named): Record<string, unknown> {
  if (image.format === 'vhd' || image.format === 'vhdx') return {}
  const extents = image.specific.extents as { filename?: string }[] | undefined
  if (!extents) return image.specific
  const folder = image.path.slice(0, image.path.lastIndexOf('/') + 1)
  const shown = (filename: string) =>
    filename.startsWith(folder) ? beside(name, filename.slice(folder.length)) : filename
  return {
    ...image.specific,
    extents: extents.map((each) => ({ ...each, filename: shown(each.filename ?? '') })),
  }
}

function toJson({ name, image }: Named): object {
  const { backing, snapshots, clusterBytes } = image
  const specific = specificOf({ name, image })
  return {
    ...(backing?.format !== undefined && { 'backing-filename-format': showFormat(backing.format) }),
    ...(snapshots.length > 0 && { snapshots: snapshots.map(snapshotsToJson) }),
    'virtual-size': image.virtualBytes,
    filename: name,
    ...(clusterBytes !== undefined && { 'cluster-size': clusterBytes }),
    format: showFormat(image.format),
    'actual-size': image.allocatedBytes,
    ...(image.encrypted && { encrypted: true }),
    ...(Object.keys(specific).length > 0 && {
      'format-specific': { type: showFormat(image.format), data: specific },
    }),
    ...(backing && { 'full-backing-filename': beside(name, backing.path), 'backing-filename': backing.path }),
    'dirty-flag': image.dirty,
  }
}

function toText({ name, image }: Named): string {
  const { backing, snapshots, clusterBytes, virtualBytes } = image
  const specific = specificOf({ name, image })
  const lines = [
    `image: ${name}`,
    `file format: ${showFormat(image.format)}`,
    `virtual size: ${showSize(virtualBytes)} (${virtualBytes} bytes)`,
    `disk size: ${showSize(image.allocatedBytes)}`,
  ]
  if (image.encrypted) lines.push('encrypted: yes')
  if (clusterBytes !== undefined) lines.push(`cluster_size: ${clusterBytes}`)
  if (image.dirty) lines.push('cleanly shut down: no')
  if (backing) {
    const full = beside(name, backing.path)
    lines.push(`backing file: ${backing.path}${full === backing.path ? '' : ` (actual path: ${full})`}`)
    if (backing.format !== undefined) lines.push(`backing file format: ${showFormat(backing.format)}`)
  }
  if (snapshots.length > 0) lines.push(...snapshotTable(snapshots))
  if (Object.keys(specific).length > 0) lines.push('Format specific information:', ...specificLines(specific, 1))
  return lines.join('\n')
}

function specificLines(value: object, depth: number): string[] {
  const indent = '    '.repeat(depth)
  return Object.entries(value).flatMap(([key, each]) => {
    const label = Array.isArray(value) ? `[${key}]:` : `${key.replaceAll('-', ' ')}:`
    if (typeof each === 'object' && each !== null) return [indent + label, ...specificLines(each, depth + 1)]
    return [`${indent}${label} ${each}`]
  })
}
