// What the tour prints: lines, one live progress bar on a terminal, and a table.
import type { Progress } from 'sluicebox'

export function say(line: string): void {
  console.log(line)
}

export function progressBar(): { show: (progress: Progress) => void; end: () => void } {
  const live = process.stdout.isTTY
  let phase = ''
  return {
    show({ phase: now, done, total }) {
      const part = total ? done / total : 0
      const line = `  ${now.padEnd(8)} ${'#'.repeat(Math.round(part * 40)).padEnd(40, '.')} ${Math.round(part * 100)} %`
      if (live) process.stdout.write(`\r${line}`)
      else if (now !== phase) console.log(line)
      phase = now
    },
    end() {
      if (live) process.stdout.write('\n')
    },
  }
}

export function table(head: string[], rows: string[][]): void {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => (row[column] ?? '').length)))
  const print = (row: string[]) =>
    say(
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
        .join('  '),
    )
  print(head)
  print(widths.map((width) => '-'.repeat(width)))
  rows.forEach(print)
}
