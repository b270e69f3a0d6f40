// AbortSignals: one listener of ours on each, whatever number of calls it may stop. So the program's own limit of listeners, and the
// warning of forgotten ones that comes with it, stay as the program set them.

interface Fan {
  readonly stops: Set<() => void>
  readonly listener: () => void
}
const fans = new WeakMap<AbortSignal, Fan>()

/** Calls `stop` when the signal aborts, unless the function that this gives was called before. */
export function whenAborted(signal: AbortSignal, stop: () => void): () => void {
  const fan = fans.get(signal) ?? listenTo(signal)
  fan.stops.add(stop)
  return () => {
    fan.stops.delete(stop)
    if (fan.stops.size > 0 || fans.get(signal) !== fan) return
    fans.delete(signal)
    signal.removeEventListener('abort', fan.listener)
  }
}

function listenTo(signal: AbortSignal): Fan {
  const stops = new Set<() => void>()
  const listener = (): void => {
    fans.delete(signal)
    // A copy: whoever settles takes itself out.
    for (const stop of [...stops]) stop()
  }
  // First, for it may throw: a signal need not be Node's own.
  signal.addEventListener('abort', listener, { once: true })
  const fan = { stops, listener }
  fans.set(signal, fan)
  return fan
}
