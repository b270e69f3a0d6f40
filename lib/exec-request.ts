// An execution as the addon is asked for it: the box's settings under the call's.
import type { BoxConfig } from './options-box.js'
import type { ExecSettings, NativeUser } from './options-exec.js'
import { signalNumber } from './signals.js'

/** What a box's processes see where nobody said otherwise. Of the host's environment they see nothing. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const TERM = 'xterm'

export function execCwd({ cwd }: ExecSettings, config: BoxConfig): string {
  if (cwd === undefined || cwd.startsWith('/')) return cwd ?? config.cwd
  return `${config.cwd.replace(/\/$/, '')}/${cwd}`
}

export function execRequest(settings: ExecSettings, config: BoxConfig, framed: boolean): object {
  const user = settings.user ?? config.user
  const { forceKillAfterMs, tty, stdin } = settings
  return {
    argv: settings.argv,
    env: execEnv(settings, config, user),
    cwd: execCwd(settings, config),
    user,
    // A terminal is open both ways: without input it gets its EOF character instead.
    stdin: stdin.kind === 'ignore' && !tty ? 'null' : 'pipe',
    stdout: settings.stdout === 'ignore' ? 'null' : 'pipe',
    stderr: settings.stderr === 'ignore' ? 'null' : settings.stderr,
    ...(tty && { tty: { cols: tty.cols, rows: tty.rows } }),
    timeoutMs: settings.timeoutMs,
    killSignal: signalNumber(settings.killSignal),
    graceMs: forceKillAfterMs === false ? -1 : forceKillAfterMs,
    highWaterMark: settings.highWaterMark,
    framed,
  }
}

function execEnv({ env, tty }: ExecSettings, config: BoxConfig, user: NativeUser): string[] {
  const whole: Record<string, string | undefined> = {
    PATH,
    // Of another user only the box itself knows it.
    ...(isRoot(user) && { HOME: '/root' }),
    ...(tty && { TERM }),
    ...config.env,
    ...env,
    ...(tty?.term !== undefined && { TERM: tty.term }),
  }
  return Object.entries(whole).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}`]))
}

const isRoot = (user: NativeUser): boolean =>
  user.kind === 'root' || (user.kind === 'ids' ? user.uid === 0 : user.name === 'root')
