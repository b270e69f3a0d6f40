// How far a command is, in qemu-img's words: on a terminal, and elsewhere where it was asked for with -p.
import type { Progress } from '../image-types.js'
import type { Io } from './io.js'

export interface Bar {
  /** For the operation's options. */
  readonly onProgress?: (progress: Progress) => void
  /** The operation has succeeded. */
  finish(): void
}

export function startBar({ stdout }: Io, asked: boolean | undefined, quiet: boolean | undefined): Bar {
  if (quiet || !(asked || stdout.isTTY)) return { finish() {} }
  const show = (percent: number) => stdout.write(`    (${percent.toFixed(2)}/100%)\r`)
  let shown = 0
  show(0)
  return {
    onProgress: ({ done, total }) => {
      // A phase of its own scale may come after a longer one.
      const percent = total ? Math.min(100, (100 * done) / total) : 0
      if (percent <= shown) return
      shown = percent
      show(percent)
    },
    finish: () => {
      show(100)
      stdout.write('\n')
    },
  }
}
