// Alternating rounds of ours and a peer, and what is said of them: medians, with the 95th percentile beside them.

export interface Spread {
  readonly median: number
  readonly p95: number
  readonly unit: string
}

export interface Figure {
  readonly name: string
  readonly value: number
  readonly unit: string
  /** What ours was measured against. */
  readonly peer: string
  readonly goal: string
  readonly met: boolean
  readonly ours: Spread
  readonly theirs?: Spread
}

export interface Goal {
  readonly name: string
  readonly unit: string
  readonly peer: string
  /** '>= 6' or '<= 4'; 'told': there is none. */
  readonly goal: `${'>=' | '<='} ${number}` | 'told'
}

/** Runs both sides `rounds` times; who goes first changes each time, so that a machine that slows down is fair to both. */
export async function alternate<T>(
  rounds: number,
  ours: () => Promise<T>,
  theirs: () => Promise<T>,
): Promise<{ ours: T[]; theirs: T[] }> {
  const results: { ours: T[]; theirs: T[] } = { ours: [], theirs: [] }
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 1) results.theirs.push(await theirs())
    results.ours.push(await ours())
    if (round % 2 === 0) results.theirs.push(await theirs())
  }
  return results
}

/** The smallest value that at least `share` of the values do not exceed. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const at = Math.max(0, Math.ceil(share * sorted.length) - 1)
  return sorted[at] ?? Number.NaN
}

export function spread(values: readonly number[], unit: string): Spread {
  return { median: percentile(values, 0.5), p95: percentile(values, 0.95), unit }
}

/** How many times as fast ours is, from what one unit of work took each side. */
export function speed(goal: Goal, ours: Spread, theirs: Spread): Figure {
  return judge(goal, theirs.median / ours.median, ours, theirs)
}

/** What ours takes as a part of what the peer takes. */
export function cost(goal: Goal, ours: Spread, theirs: Spread): Figure {
  return judge(goal, ours.median / theirs.median, ours, theirs)
}

export function judge({ name, unit, peer, goal }: Goal, value: number, ours: Spread, theirs?: Spread): Figure {
  const limit = Number(goal.replace(/^[<>]= /, ''))
  const met = goal === 'told' || (goal.startsWith('>=') ? value >= limit : value <= limit)
  return { name, value, unit, peer, goal, met, ours, theirs }
}
