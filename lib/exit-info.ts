// How a process ended, as the SDK tells it.
import type { ExitInfo } from './exec-types.js'
import type { NativeExit } from './native.js'
import { describeSignal, signalName } from './signals.js'

export function toExitInfo(native: NativeExit): ExitInfo {
  const signal = native.signal === undefined ? undefined : signalName(native.signal)
  return Object.freeze({
    exitCode: signal === undefined ? native.exitCode : undefined,
    signal,
    signalDescription: signal === undefined ? undefined : describeSignal(signal),
    ok: signal === undefined && native.exitCode === 0,
    forced: native.forced,
    timedOut: native.timedOut,
    durationMs: native.durationMs,
    startedAt: new Date(native.startedAt),
    usage: { userMs: native.userMs, systemMs: native.systemMs, maxRssBytes: native.maxRssBytes },
  })
}
