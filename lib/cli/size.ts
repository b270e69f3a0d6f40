// Sizes as qemu-img reads and writes them.
import { CommandError } from './arguments.js'

const SUFFIXES = 'bkmgtpe'

/** Bytes of '10G', '1.5M', '512'; a suffix is binary, and in either case. */
export function parseSize(text: string): number {
  if (/^0x[0-9a-f]{1,13}$/i.test(text)) return Number(text)
  const [, digits, suffix] = /^(\d+(?:\.\d+)?)([a-z]?)$/i.exec(text) ?? []
  const power = suffix ? SUFFIXES.indexOf(suffix.toLowerCase()) : 0
  if (digits === undefined || power < 0)
    throw new CommandError(`invalid size '${text}': a number of bytes, with k, M, G, T, P or E as its suffix`)
  const bytes = Number(digits) * 1024 ** power
  if (!Number.isSafeInteger(Math.trunc(bytes))) throw new CommandError(`the size '${text}' is too large`)
  // '1.5' alone would be a byte and a half.
  if (!suffix && digits.includes('.')) throw new CommandError(`invalid size '${text}': bytes are whole`)
  return Math.trunc(bytes)
}

/** As C prints numbers: of two that are as near, the even one. */
const evenly = (digits: Intl.NumberFormatOptions) =>
  new Intl.NumberFormat('en-US', { ...digits, roundingMode: 'halfEven', useGrouping: false })
const threeDigits = evenly({ maximumSignificantDigits: 3 })
const twoDecimals = evenly({ minimumFractionDigits: 2, maximumFractionDigits: 2 })

/** '15.62%' */
export const showShare = (count: number, of: number): string => `${twoDecimals.format((100 * count) / of)}%`

const UNITS = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']

/** Three digits and a binary unit: '196 KiB'. */
export function showSize(bytes: number): string {
  // From 1000 on in the next unit, so that there are never four digits.
  let unit = 0
  while (unit < UNITS.length - 1 && bytes / 1024 ** unit >= 1000) unit++
  return `${threeDigits.format(bytes / 1024 ** unit)} ${UNITS[unit]}B`
}
