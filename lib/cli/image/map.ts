// sluicebox image map: where in which file of its chain each part of a disk lies.
import type { ImageInfo, MapExtent } from '../../image-types.js'
import { CommandError, OUTPUT, parse, REASONS, REFUSED, refuse, wantsJson } from '../arguments.js'
import { formatOf } from '../formats.js'
import { parseSize } from '../size.js'
import type { Command } from '../tool.js'
import { nameChain } from './chain-names.js'
import { oneFile } from './one-file.js'

export const map: Command = {
  usage: '[-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...OUTPUT,
      ...REFUSED,
      format: { type: 'string', short: 'f' },
      'start-offset': { type: 'string', short: 's' },
      'max-length': { type: 'string', short: 'l' },
      'force-share': { type: 'boolean', short: 'U' },
    })
    refuse(values, REASONS)
    const json = wantsJson(values.output)
    const file = oneFile(positionals)
    const { signal } = tool.io
    const { 'start-offset': start, 'max-length': length } = values
    const shown = { format: formatOf(values.format), shared: values['force-share'], signal }
    const options = {
      ...shown,
      start: start === undefined ? undefined : parseSize(start),
      length: length === undefined ? undefined : parseSize(length),
    }
    await tool.withImages({ named: [file], allowed: allowPaths }, async (images) => {
      if (json) {
        let before = '['
        for await (const extent of images.map(file, options)) {
          tool.io.stdout.write(before + toJson(extent))
          before = ',\n'
        }
        tool.print(before === '[' ? '[]' : ']')
        return
      }
      const { chain } = await images.info(file, { ...shown, chain: true })
      const names = nameChain(file, chain as ImageInfo[]).map(({ name }) => name)
      tool.print(row('Offset', 'Length', 'Mapped to', 'File'))
      for await (const { data, zero, offset, start, length, depth } of images.map(file, options)) {
        if (!data || zero) continue
        if (offset === undefined) throw new CommandError('File contains external, encrypted or compressed clusters.')
        tool.print(row(hex(start), hex(length), hex(offset), names[depth] as string))
      }
    })
    return 0
  },
}

const row = (...[offset, length, mapped, file]: [string, string, string, string]) =>
  offset.padEnd(16) + length.padEnd(16) + mapped.padEnd(16) + file

const hex = (bytes: number): string => (bytes === 0 ? '0' : `0x${bytes.toString(16)}`)

/** On one line, with qemu-img's spaces. */
function toJson({ start, length, depth, present, zero, data, offset }: MapExtent): string {
  const words = Object.entries({ start, length, depth, present, zero, data, offset })
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `"${key}": ${value}`)
  return `{ ${words.join(', ')}}`
}
