// The producers of the test addon and the drain that they feed, behind a public Runtime.
import type { AsyncResource } from 'node:async_hooks'
import { type Runtime, TypedEvents } from 'sluicebox'

export interface Sink {
  readonly generation: number
  readonly scope: AsyncResource
  onRecord(kind: number, flags: number, length: number, low: number, high: number): void
}
export interface Drain {
  readonly core: object
  add(id: number, sink: Sink): void
  remove(id: number): void
  hold(): void
  release(): void
}

interface Flood {
  /** Of its handles, producer by producer. */
  readonly ids: readonly number[]
  start(): void
  stop(): void
}
export interface EventFlood extends Flood {
  posted(): number
}
export interface LaneFlood extends Flood {
  /** All bytes that are held, or `limit` of them. */
  read(lane: number, limit?: number): { chunk: Buffer; more: boolean; ended: boolean }
}
export interface Peer {
  start(): void
  stop(): void
}

interface Testing {
  /** `count` is per producer, 0: without end. `handles` is per producer, each with `channels` reserved records. */
  readonly EventFlood: new (
    core: object,
    options: { producers: number; handles: number; channels: number; count: number },
  ) => EventFlood
  readonly LaneFlood: new (
    core: object,
    options: { lanes: number; chunk: number; bytes: number; highWaterMark: number; patterned: boolean },
  ) => LaneFlood
  /** Calls `listener` through one ThreadSafeFunction for every event, or for every chunk if `chunk` is not 0. */
  readonly Peer: new (
    listener: (handle: number, ...rest: never[]) => void,
    options: { producers: number; handles: number; count: number; chunk: number },
  ) => Peer
}

const beside = (file: string) => import(new URL(file, import.meta.resolve('sluicebox')).href)

export async function drainOf(runtime: Runtime): Promise<Drain> {
  const { internals } = (await beside('runtime.js')) as { internals: WeakMap<Runtime, { drain: Drain }> }
  const inside = internals.get(runtime)
  if (!inside) throw new Error('the runtime has no drain')
  return inside.drain
}

export async function testing(): Promise<Testing> {
  const { loadAddon } = (await beside('native.js')) as { loadAddon(): { addon: { testing: Testing } } }
  return loadAddon().addon.testing
}

/** The public emitter, with the door that only the library uses open. */
export type Emitter<M extends { [K in keyof M]: unknown[] }> = TypedEvents<M> & {
  emit<K extends keyof M & string>(event: K, ...args: M[K]): boolean
}

export function makeEmitter<M extends { [K in keyof M]: unknown[] }>(target: string): Emitter<M> {
  const Open = TypedEvents as unknown as new (target: string, failed: (error: unknown) => void) => Emitter<M>
  return new Open(target, (error) => {
    throw error
  })
}

/** A handle's generation, as its id carries it above 21 bits of slot. */
export const generationOf = (id: number): number => Math.floor(id / 2 ** 21)
