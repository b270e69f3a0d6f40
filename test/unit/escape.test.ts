// escapedCommand: a real shell reads back the same arguments.
import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { escapeCommand } from '../../lib/escape.js'

const hard = [
  ['ls', '-l'],
  ['a b', ''],
  ["it's", '"quoted"', '`x`', '$(x)', '$HOME', '\\', '!!', '*', '~', '#', ';&|<>(){}[]?'],
  ['x', '\n', 'a\n', '\na', 'a\n\nb\n\n'],
  ['x', '\x1b[31mred\x1b[0m', '\r', '\t', '\x7f', '\u0085'],
  ['x', '\u202eabc', '\u200b', '\u2028', '\ufeff'],
  ['x', '𝄞', 'é', '日本', "mixed\n'\x1b$(x)\\"],
  ['-n', '--', '-'],
  ['A=b', 'A=b'],
  ['if', 'then'],
  ['x', Array.from({ length: 255 }, (_, code) => String.fromCharCode(code + 1)).join('')],
]

test.each(hard.map((argv) => [argv]))(
  'X61: a shell reads %j back as it was, and none of it is a control character',
  (argv) => {
    const text = escapeCommand(argv)
    expect(text).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    const script = `set -- ${text}; for each; do printf '%s\\0' "$each"; done`
    for (const shell of ['sh', 'bash']) {
      const out = execFileSync(shell, ['-c', script], {
        encoding: 'utf8',
        env: { PATH: process.env.PATH, LC_ALL: 'C.UTF-8' },
      })
      expect(out.split('\0').slice(0, -1)).toEqual(argv)
    }
  },
)

test('X61: plain words stay as they are', () => {
  expect(escapeCommand(['git', 'log', '--format=%H', 'a/b.c', 'x:y@z'])).toBe('git log --format=%H a/b.c x:y@z')
  expect(escapeCommand(['a=b', 'c=d'])).toBe("'a=b' c=d")
})
