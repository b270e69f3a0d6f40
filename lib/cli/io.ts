// Where a command reads and writes: a test gives it something else than the process's own.

export interface Output {
  write(text: string): unknown
  /** A terminal, which can show a bar. */
  readonly isTTY?: boolean
}
export interface Io {
  readonly stdout: Output
  readonly stderr: Output
  readonly env: Readonly<Record<string, string | undefined>>
  /** Ends what is under way. */
  readonly signal: AbortSignal
}
