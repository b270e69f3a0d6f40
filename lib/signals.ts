// Signals by name and by number. A real-time signal is counted from SIGRTMIN as the C library of most boxes has it.
import { constants } from 'node:os'
import type { Signal } from './exec-types.js'

const RTMIN = 34
const RTMAX = 64

const names = new Map<number, Signal>()
// Of two names for one number (SIGABRT, SIGIOT) the first is the usual one.
for (const [name, number] of Object.entries(constants.signals))
  if (!names.has(number)) names.set(number, name as NodeJS.Signals)

/** undefined: there is no such signal. */
export function signalNumber(name: string): number | undefined {
  const known = Object.hasOwn(constants.signals, name) ? constants.signals[name as NodeJS.Signals] : undefined
  if (known !== undefined) return known
  const number = RTMIN + Number(/^SIGRTMIN\+(\d{1,2})$/.exec(name)?.[1] ?? Number.NaN)
  return number <= RTMAX ? number : undefined
}

export function signalName(number: number): Signal {
  return names.get(number) ?? `SIGRTMIN+${number - RTMIN}`
}

export function describeSignal(name: Signal): string {
  return descriptions[name] ?? 'Real-time signal'
}

const descriptions: Readonly<Record<string, string>> = {
  SIGHUP: 'Terminal closed',
  SIGINT: 'Interrupted with Ctrl-C',
  SIGQUIT: 'Quit with Ctrl-\\',
  SIGILL: 'Invalid machine instruction',
  SIGTRAP: 'Trace trap',
  SIGABRT: 'Aborted',
  SIGBUS: 'Bus error: the address does not exist',
  SIGFPE: 'Arithmetic error',
  SIGKILL: 'Killed',
  SIGUSR1: 'User-defined signal 1',
  SIGSEGV: 'Segmentation fault',
  SIGUSR2: 'User-defined signal 2',
  SIGPIPE: 'Broken pipe',
  SIGALRM: 'Timer expired',
  SIGTERM: 'Terminated',
  SIGSTKFLT: 'Coprocessor stack fault',
  SIGCHLD: 'A child changed its state',
  SIGCONT: 'Continued',
  SIGSTOP: 'Stopped',
  SIGTSTP: 'Stopped with Ctrl-Z',
  SIGTTIN: 'Stopped: it read the terminal from the background',
  SIGTTOU: 'Stopped: it wrote to the terminal from the background',
  SIGURG: 'Urgent data on a socket',
  SIGXCPU: 'CPU time limit exceeded',
  SIGXFSZ: 'File size limit exceeded',
  SIGVTALRM: 'Virtual timer expired',
  SIGPROF: 'Profiling timer expired',
  SIGWINCH: 'Terminal window changed its size',
  SIGIO: 'Input or output is possible',
  SIGPWR: 'Power failure',
  SIGSYS: 'Bad or forbidden system call',
}
