// The options of a new image: what -o says, in qemu-img's names, as the library takes it, and as it is told.
import type { DiskFormat, ImageCreateOptions } from '../../image-types.js'
import { CommandError } from '../arguments.js'
import { formatOf, showFormat } from '../formats.js'
import { parseSize } from '../size.js'

type Read = (name: string, value: string) => object

const onOff = (name: string, value: string): boolean => {
  if (value === 'on' || value === 'off') return value === 'on'
  throw new CommandError(`Parameter '${name}' expects 'on' or 'off'`)
}
const whole = (name: string, value: string): number => {
  if (!/^\d+$/.test(value)) throw new CommandError(`Parameter '${name}' expects a number`)
  return Number(value)
}

/** By format and name. What qemu-img has and is not here is an unknown parameter, by its name. */
const READERS: Readonly<Record<DiskFormat, Readonly<Record<string, Read>>>> = {
  raw: { preallocation: (_, value) => ({ preallocation: value }) },
  qcow2: {
    cluster_size: (_, value) => ({ clusterSize: parseSize(value) }),
    compat: (_, value) => ({ compat: value === 'v2' ? '0.10' : value === 'v3' ? '1.1' : value }),
    compression_type: (_, value) => ({ compression: value }),
    extended_l2: (name, value) => ({ extendedL2: onOff(name, value) }),
    lazy_refcounts: (name, value) => ({ lazyRefcounts: onOff(name, value) }),
    preallocation: (_, value) => ({ preallocation: value }),
    refcount_bits: (name, value) => ({ refcountBits: whole(name, value) }),
  },
  vhd: {
    // Of exactly the size asked for, always.
    force_size: (name, value) => {
      if (!onOff(name, value)) throw new CommandError('force_size=off is not supported: a disk has the size asked for')
      return {}
    },
    subformat: (_, value) => ({ subformat: value }),
  },
  vhdx: {
    // As they are, always.
    block_state_zero: (name, value) => {
      if (!onOff(name, value)) throw new CommandError('block_state_zero=off is not supported: new blocks read as zeros')
      return {}
    },
    block_size: (_, value) => (parseSize(value) === 0 ? {} : { blockSize: parseSize(value) }),
    log_size: (_, value) => ({ logSize: parseSize(value) }),
    subformat: (_, value) => ({ subformat: value }),
  },
  vmdk: {
    adapter_type: (_, value) => ({ adapter: value }),
    subformat: (_, value) => ({ subformat: value }),
  },
}

export interface NewImage {
  readonly format: DiskFormat
  /** For images.create(), without size and backing. */
  readonly options: ImageCreateOptions
  readonly size: number | undefined
  readonly backing: string | undefined
  readonly backingFormat: DiskFormat | undefined
  /** As they were given, for what is told. */
  readonly given: ReadonlyMap<string, string>
}

/** `lists`: of each -o, 'name=value,name=value'; a comma in a value is doubled. */
export function readNewImage(format: DiskFormat, lists: readonly string[]): NewImage {
  const given = new Map(lists.flatMap(split))
  const options: Record<string, unknown> = { format }
  for (const [name, value] of given) {
    if (name === 'size' || name === 'backing_file' || name === 'backing_fmt') continue
    const read = Object.hasOwn(READERS[format], name) ? READERS[format][name] : undefined
    if (!read) throw new CommandError(`Invalid parameter '${name}' for the format ${showFormat(format)}`)
    Object.assign(options, read(name, value))
  }
  const size = given.get('size')
  return {
    format,
    options: options as ImageCreateOptions,
    size: size === undefined ? undefined : parseSize(size),
    backing: given.get('backing_file'),
    backingFormat: formatOf(given.get('backing_fmt')),
    given,
  }
}

function split(list: string): [string, string][] {
  return (list.match(/(?:[^,]|,,)+/g) ?? []).map((pair) => {
    const [name, ...value] = pair.replaceAll(',,', ',').split('=')
    // As for any switch: its name alone turns it on.
    return [name as string, value.length === 0 ? 'on' : value.join('=')]
  })
}

/** 'Formatting …', before it is done. */
export function formatting(file: string, image: NewImage, size: number): string {
  const { given, format } = image
  const words = [`Formatting '${file}', fmt=${showFormat(format)}`]
  const say = (name: string, otherwise?: string) => {
    const value = given.get(name) ?? otherwise
    if (value !== undefined) words.push(`${name}=${value}`)
  }
  if (format === 'qcow2') {
    words.push(`cluster_size=${(image.options as { clusterSize?: number }).clusterSize ?? 65536}`)
    say('extended_l2', 'off')
    say('preallocation')
    say('compression_type', 'zlib')
  }
  words.push(`size=${size}`)
  if (format === 'qcow2') say('compat')
  if (image.backing !== undefined) words.push(`backing_file=${image.backing}`)
  if (image.backingFormat !== undefined) words.push(`backing_fmt=${showFormat(image.backingFormat)}`)
  if (format === 'qcow2') {
    say('lazy_refcounts', 'off')
    say('refcount_bits', '16')
  } else if (format === 'vmdk') {
    say('adapter_type')
    words.push('compat6=off', 'hwversion=undefined')
    say('subformat')
  } else {
    // In qemu-img's order, with what it says where nothing was asked for.
    if (format === 'vhdx') {
      words.push(`log_size=${(image.options as { logSize?: number }).logSize ?? 2 ** 20}`)
      words.push(`block_size=${(image.options as { blockSize?: number }).blockSize ?? 0}`)
    }
    for (const name of ['subformat', 'block_state_zero', 'force_size', 'preallocation']) say(name)
  }
  return words.join(' ')
}

/** -o help, for one format. */
export function optionsOf(format: DiskFormat): string {
  const names = ['size', ...(format === 'raw' ? [] : ['backing_file', 'backing_fmt']), ...Object.keys(READERS[format])]
  return [`Supported ${showFormat(format)} options:`, ...names.sort().map((name) => `  ${name}`)].join('\n')
}
