// What both sides deliver to: one emitter a handle, in the async context of that handle, with four listeners to each of four kinds of
// events, or one to its output.
import { AsyncResource } from 'node:async_hooks'
import { type Emitter, makeEmitter } from '../support/door.js'

export interface Kinds {
  output: [value: number]
  progress: [value: number]
  state: [value: number]
  exit: [value: number]
}
export const KINDS = ['output', 'progress', 'state', 'exit'] as const
const LISTENERS_A_KIND = 4

export interface Tally {
  /** Of all that listeners were given. */
  sum: number
}

export class Target {
  readonly scope = new AsyncResource('bench', { requireManualDestroy: true })
  readonly events: Emitter<Kinds> = makeEmitter<Kinds>('bench')

  constructor(tally: Tally) {
    for (const kind of KINDS) {
      for (let i = 0; i < LISTENERS_A_KIND; i++) {
        this.events.on(kind, (value) => {
          tally.sum += value
        })
      }
    }
  }
}

/** What the listeners of `handles` handles sum up to when each was given `count` events numbered from 0. */
export function expectedSum(handles: number, count: number): number {
  return ((count * (count - 1)) / 2) * handles * LISTENERS_A_KIND
}

/** One stream of output and the sum of its bytes. */
export class Reader {
  readonly scope = new AsyncResource('bench', { requireManualDestroy: true })
  readonly events = makeEmitter<{ data: [chunk: Buffer] }>('bench')

  constructor(tally: Tally) {
    this.events.on('data', (chunk) => {
      tally.sum += sumOf(chunk)
    })
  }
}

/** Unrolled, and exact as no chunk is longer than 8 MiB: what is measured is the delivery, not the adding up. */
function sumOf(chunk: Buffer): number {
  const at = (i: number): number => chunk[i] as number
  const inEights = chunk.length - (chunk.length % 8)
  let sum = 0
  for (let i = 0; i < inEights; i += 8) {
    const low = at(i) + at(i + 1) + at(i + 2) + at(i + 3)
    const high = at(i + 4) + at(i + 5) + at(i + 6) + at(i + 7)
    sum = (sum + low + high) | 0
  }
  for (let i = inEights; i < chunk.length; i++) sum = (sum + at(i)) | 0
  return sum
}
