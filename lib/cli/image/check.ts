// sluicebox image check: whether an image's metadata agrees with itself. Exits 0 clean, 2 corrupt, 3 leaks only, 63 for a
// format that cannot be checked, 1 when it could not be done.
import { SluiceboxError } from '../../errors.js'
import type { CheckReport, DiskFormat, Images } from '../../image-types.js'
import { CommandError, choice, OUTPUT, parse, REASONS, REFUSED, refuse, wantsJson } from '../arguments.js'
import { formatOf, showFormat } from '../formats.js'
import { showShare } from '../size.js'
import type { Command, Tool } from '../tool.js'
import { oneFile } from './one-file.js'

const CORRUPT = 2
const LEAKS = 3
const NO_CHECKS = 63

export const check: Command = {
  usage: '[-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-U] filename',
  async run(args, tool) {
    const { values, positionals, allowPaths } = parse(args, {
      ...OUTPUT,
      ...REFUSED,
      quiet: { type: 'boolean', short: 'q' },
      format: { type: 'string', short: 'f' },
      repair: { type: 'string', short: 'r' },
      'src-cache': { type: 'string', short: 'T' },
      'force-share': { type: 'boolean', short: 'U' },
    })
    refuse(values, REASONS)
    const json = wantsJson(values.output)
    const file = oneFile(positionals)
    const repair = choice('repair mode', values.repair, ['leaks', 'all'] as const)
    if (repair && values['force-share'])
      throw new CommandError('-U reads only: what another program writes is not repaired')
    const options = { format: formatOf(values.format), shared: values['force-share'], signal: tool.io.signal }
    return await tool.withImages({ named: [file], allowed: allowPaths }, async (images) => {
      const { format } = await images.info(file, options)
      const report = await checkable(images, file, { ...options, repair })
      if (!report) {
        if (!values.quiet) tool.complain('This image format does not support checks')
        return NO_CHECKS
      }
      if (!values.quiet) for (const { message } of report.problems) tool.io.stderr.write(`${message}\n`)
      // Of other formats qemu-img tells no more than what is wrong.
      const shown =
        format === 'qcow2' ? report : { ...report, imageEndOffset: 0, totalClusters: 0, allocatedClusters: 0 }
      if (json) tool.printJson(toJson(shown, file, format))
      else if (!values.quiet) tell(shown, tool)
      return report.corruptions > 0 ? CORRUPT : report.leaks > 0 ? LEAKS : 0
    })
  },
}

async function checkable(
  images: Images,
  file: string,
  options: Parameters<Images['check']>[1],
): Promise<CheckReport | undefined> {
  try {
    return await images.check(file, options)
  } catch (error) {
    if (SluiceboxError.is(error) && error.code === 'UNSUPPORTED' && /no metadata to check/.test(error.message))
      return undefined
    if (SluiceboxError.is(error)) throw new CommandError(error.message)
    throw error
  }
}

/** Zero counts are left out. */
function toJson(report: CheckReport, filename: string, format: DiskFormat): object {
  const counts = {
    'image-end-offset': report.imageEndOffset,
    'total-clusters': report.totalClusters,
    'allocated-clusters': report.allocatedClusters,
    'fragmented-clusters': report.fragmentedClusters,
    'compressed-clusters': report.compressedClusters,
    corruptions: report.corruptions,
    'corruptions-fixed': report.corruptionsFixed,
    leaks: report.leaks,
    'leaks-fixed': report.leaksFixed,
  }
  return {
    ...Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0)),
    'check-errors': 0,
    filename,
    format: showFormat(format),
  }
}

function tell(report: CheckReport, tool: Tool): void {
  const { leaks, corruptions, leaksFixed, corruptionsFixed } = report
  if (leaksFixed + corruptionsFixed > 0) {
    tool.print('The following inconsistencies were found and repaired:\n')
    tool.print(`    ${leaksFixed} leaked clusters\n    ${corruptionsFixed} corruptions\n`)
    tool.print('Double checking the fixed image now...')
  }
  if (leaks + corruptions === 0) tool.print('No errors were found on the image.')
  if (corruptions > 0)
    tool.print(
      `\n${corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.`,
    )
  if (leaks > 0)
    tool.print(
      `\n${leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.`,
    )
  const { totalClusters: total, allocatedClusters: allocated } = report
  if (total > 0 && allocated > 0) {
    tool.print(
      `${allocated}/${total} = ${showShare(allocated, total)} allocated, ` +
        `${showShare(report.fragmentedClusters, allocated)} fragmented, ` +
        `${showShare(report.compressedClusters, allocated)} compressed clusters`,
    )
  }
  if (report.imageEndOffset > 0) tool.print(`Image end offset: ${report.imageEndOffset}`)
}
