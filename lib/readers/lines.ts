// Lines out of chunks: split as bytes and decoded whole, so that no boundary damages a character.

const NEWLINE = 0x0a
const CARRIAGE_RETURN = 0x0d

export class LineSplitter {
  readonly #preserveNewlines: boolean
  /** The pieces of a line whose end has not come: joined once, so that a long line costs what its bytes cost. */
  #begun: Buffer[] = []

  constructor(preserveNewlines = false) {
    this.#preserveNewlines = preserveNewlines
  }

  /** The lines that this chunk ends. */
  push(chunk: Buffer): string[] {
    const lines: string[] = []
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      lines.push(this.#line(chunk.subarray(start, end + 1)))
      start = end + 1
    }
    if (start < chunk.length) this.#begun.push(chunk.subarray(start))
    return lines
  }

  /** What the last newline left, if anything. */
  end(): string[] {
    return this.#begun.length > 0 ? [this.#line(Buffer.alloc(0))] : []
  }

  #line(last: Buffer): string {
    const whole = this.#begun.length > 0 ? Buffer.concat([...this.#begun, last]) : last
    this.#begun = []
    return whole.toString('utf8', 0, this.#preserveNewlines ? whole.length : lengthWithoutNewline(whole))
  }
}

/** Without one `\n` or `\r\n` at the end. */
export function lengthWithoutNewline(bytes: Uint8Array): number {
  const { length } = bytes
  if (length === 0 || bytes[length - 1] !== NEWLINE) return length
  return length > 1 && bytes[length - 2] === CARRIAGE_RETURN ? length - 2 : length - 1
}
