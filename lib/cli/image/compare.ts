// sluicebox image compare: whether two images show a guest the same. Exits 0 identical, 1 different, 2 when one cannot be
// opened, 4 when one cannot be read.
import { SluiceboxError } from '../../errors.js'
import { checkCache, parse, REASONS, REFUSED, refuse, UsageError } from '../arguments.js'
import { formatOf } from '../formats.js'
import { startBar } from '../progress.js'
import { type Command, describe } from '../tool.js'

const CANNOT_OPEN = 2
const CANNOT_READ = 4
const READING: readonly string[] = ['IO', 'IMAGE_CORRUPT', 'NO_SPACE']

export const compare: Command = {
  usage: '[-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...REFUSED,
      'a-format': { type: 'string', short: 'f' },
      'b-format': { type: 'string', short: 'F' },
      'src-cache': { type: 'string', short: 'T' },
      progress: { type: 'boolean', short: 'p' },
      quiet: { type: 'boolean', short: 'q' },
      strict: { type: 'boolean', short: 's' },
      'force-share': { type: 'boolean', short: 'U' },
    })
    refuse(values, REASONS)
    checkCache(values['src-cache'])
    const [a, b, ...more] = positionals
    if (a === undefined || b === undefined || more.length > 0) throw new UsageError('Expecting two image file names')
    const options = {
      strict: values.strict,
      formatA: formatOf(values['a-format']),
      formatB: formatOf(values['b-format']),
      shared: values['force-share'],
      signal: tool.io.signal,
    }
    const say = (text: string) => values.quiet || tool.print(text)
    const bar = startBar(tool.io, values.progress, values.quiet)
    try {
      const { identical, firstDifference, sizeDiffers, allocationDiffers } = await tool.withImages(
        { named: [a, b], allowed: allowPaths },
        (images) => images.compare(a, b, { ...options, onProgress: bar.onProgress }),
      )
      if (identical) bar.finish()
      if (sizeDiffers) say(values.strict ? 'Strict mode: Image size mismatch!' : 'Warning: Image size mismatch!')
      if (identical) say('Images are identical.')
      else if (allocationDiffers) say(`Strict mode: Offset ${firstDifference} block status mismatch!`)
      else if (firstDifference !== undefined) say(`Content mismatch at offset ${firstDifference}!`)
      return identical ? 0 : 1
    } catch (error) {
      if (!SluiceboxError.is(error)) throw error
      tool.complain(describe(error))
      return READING.includes(error.code) ? CANNOT_READ : CANNOT_OPEN
    }
  },
}
