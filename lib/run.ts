// run(): an execution whose output is collected, and whose end becomes a result or an error.
import { ExecError, type ExecErrorResult, ExecFailedError, ExecOverflowError, ExecTimeoutError } from './box-errors.js'
import { escapeCommand } from './escape.js'
import type { ListenerFailure } from './events.js'
import type { Bytes, ExitInfo, RunResult } from './exec-types.js'
import type { Execution } from './execution.js'
import type { RunSettings } from './options-exec.js'
import { Collector, Transcript } from './readers/collector.js'

export interface RunPlace {
  /** The public method. */
  readonly op: string
  readonly boxId: string
  readonly cwd: string
  listenerFailed: ListenerFailure
}

export async function collect(
  execution: Execution,
  settings: RunSettings,
  place: RunPlace,
): Promise<RunResult<string | Bytes>> {
  let overflowed: 'stdout' | 'stderr' | undefined
  const transcript = new Transcript({
    ...settings,
    onOverflow(stream) {
      if (overflowed) return
      overflowed = stream
      execution.kill().catch(ignore)
    },
  })
  const { outputs } = execution.inside
  const failed = (name: string) => (error: unknown) => place.listenerFailed(error, { target: place.op, name })
  new Collector(outputs.stdout, transcript, settings.onStdout, failed('onStdout'))
  new Collector(outputs.stderr, transcript, settings.onStderr, failed('onStderr'))

  const known = () => knownOf(execution, settings, place, transcript)
  const exit = await execution.inside.told().catch((error) => {
    throw settings.signal?.aborted ? settings.signal.reason : withResult(error, known())
  })
  if (execution.inside.wasAborted) throw settings.signal?.reason
  const result = { ...known(), ...exit } as RunResult<string | Bytes>
  const error = problem(execution, result, settings, place, overflowed)
  if (error) throw error
  return result
}

function problem(
  execution: Execution,
  result: RunResult<string | Bytes>,
  settings: RunSettings,
  { op, boxId }: RunPlace,
  overflowed: 'stdout' | 'stderr' | undefined,
): Error | undefined {
  const details = { op, boxId, result }
  const what = `${op}: ${result.escapedCommand}`
  const { stdinFailure } = execution.inside
  if (stdinFailure)
    return new ExecFailedError(`${what} was killed: the source of its stdin failed`, {
      ...details,
      cause: stdinFailure.reason,
    })
  if (overflowed) {
    const { maxBuffer } = settings
    return new ExecOverflowError(`${what} was killed: its ${overflowed} passed maxBuffer, ${maxBuffer} bytes`, {
      ...details,
      maxBuffer,
      stream: overflowed,
      hint: `Raise maxBuffer, set overflow to 'truncate-tail' or 'truncate-head', or stream it with exec().`,
    })
  }
  const { timeoutMs } = settings
  if (result.timedOut) return new ExecTimeoutError(`${what} ran out of its ${timeoutMs} ms`, { ...details, timeoutMs })
  if (settings.check && !result.ok) return new ExecFailedError(`${what} ${endOf(result)}`, details)
  return undefined
}

const endOf = ({ exitCode, signal, signalDescription }: ExitInfo): string =>
  signal === undefined ? `ended with exit code ${exitCode}` : `was ended by ${signal} (${signalDescription})`

function knownOf(execution: Execution, settings: RunSettings, place: RunPlace, transcript: Transcript) {
  const { encoding, stripFinalNewline, all } = settings
  const { truncated } = transcript
  const text = (which: 'stdout' | 'stderr' | 'all') => {
    // Where bytes were left out, what is kept is exactly as much as was asked for.
    const cut = which === 'all' ? truncated.stdout + truncated.stderr : truncated[which]
    const strip = stripFinalNewline && cut === 0
    return encoding === 'buffer' ? transcript.bytesOf(which, strip) : transcript.textOf(which, strip, encoding)
  }
  return {
    id: execution.id,
    boxId: place.boxId,
    pid: execution.pid,
    argv: execution.argv,
    escapedCommand: escapeCommand(execution.argv),
    cwd: place.cwd,
    stdout: text('stdout'),
    stderr: text('stderr'),
    ...(all && { all: text('all') }),
    truncated,
  }
}

/** The same error, knowing the output so far. */
function withResult(error: unknown, result: ExecErrorResult): unknown {
  if (error instanceof ExecError) Object.assign(error.result, result)
  return error
}

const ignore = (): void => {}
