// A command as text that a shell reads back as the same arguments, and that a terminal shows without harm.

/** Characters that need no quotes anywhere in a word. */
const plain = /^[\w./:=@%+,-]+$/
const reserved = /^(case|do|done|elif|else|esac|fi|for|if|in|then|until|while)$/
/** Control and format characters (bidirectional marks too), line separators, lone surrogates: none of them is printed. */
const hidden = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/u
const hiddenRuns = new RegExp(`(${hidden.source})`, 'u')

export function escapeCommand(argv: readonly string[]): string {
  return argv.map(escapeWord).join(' ')
}

function escapeWord(word: string, index: number): string {
  // As the first word, `a=b` would be an assignment, and `if` no program.
  if (plain.test(word) && !(index === 0 && (word.includes('=') || reserved.test(word)))) return word
  if (!hidden.test(word)) return quote(word)
  return word
    .split(hiddenRuns)
    .filter((part) => part !== '')
    .map((part) => (hidden.test(part) ? part.split(/(\n)/).map(escapeHidden).join('') : quote(part)))
    .join('')
}

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

const NEWLINE = `"$\{IFS#??}"`

/** POSIX has no escape for these within quotes: printf makes them. Its newlines would be cut off at the end; IFS has one. */
function escapeHidden(text: string): string {
  if (text === '') return ''
  if (text === '\n') return NEWLINE
  const octal = Array.from(Buffer.from(text), (byte) => `\\${byte.toString(8).padStart(3, '0')}`)
  return `"$(printf '${octal.join('')}')"`
}
