// token_text.ts: a token's exact bytes as something to see: spaces, line breaks and other invisible characters get a
// sign, bytes that are no whole character stand as hex. Nothing is hidden and nothing is lost.

export interface Piece {
  kind: 'text' | 'space' | 'code' | 'byte'
  text: string
}

/** Length of the well-formed UTF-8 character at bytes[i], or 0. */
function charLength(bytes: readonly number[], i: number): number {
  const first = bytes[i]!
  const length =
    first < 0x80
      ? 1
      : first >= 0xc2 && first < 0xe0
        ? 2
        : first >= 0xe0 && first < 0xf0
          ? 3
          : first >= 0xf0 && first < 0xf5
            ? 4
            : 0
  try {
    new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes.slice(i, i + length)))
  } catch {
    return 0
  }
  return i + length <= bytes.length ? length : 0
}

const signs: Record<string, string> = { ' ': '·', '\n': '⏎', '\t': '⇥', '\r': '␍' }
// Separators but the space, control and format characters, and what Unicode has not assigned.
const invisible = /^[\p{Z}\p{C}\u{115F}\u{1160}\u{3164}\u{FFA0}\u{2800}]$/u

function pieceOf(char: string, isFirst: boolean): Piece {
  const sign = signs[char]
  if (sign) return { kind: 'space', text: sign }
  if (invisible.test(char))
    return { kind: 'code', text: `U+${char.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}` }
  if (isFirst && /^\p{M}$/u.test(char)) return { kind: 'text', text: `◌${char}` } // a mark needs something to stand on
  return { kind: 'text', text: char }
}

export function visiblePieces(bytes: readonly number[]): Piece[] {
  const pieces: Piece[] = []
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  for (let i = 0; i < bytes.length;) {
    const length = charLength(bytes, i)
    const piece: Piece =
      length === 0
        ? { kind: 'byte', text: bytes[i]!.toString(16).toUpperCase().padStart(2, '0') }
        : pieceOf(decoder.decode(Uint8Array.from(bytes.slice(i, i + length))), i === 0)
    const last = pieces.at(-1)
    if (last && last.kind === piece.kind && piece.kind === 'text') last.text += piece.text
    else pieces.push(piece)
    i += Math.max(1, length)
  }
  return pieces
}

/** The number of line breaks that a token ends with: the page breaks its line as often. */
export function trailingBreaks(bytes: readonly number[]): number {
  let n = 0
  while (n < bytes.length && bytes[bytes.length - 1 - n] === 10) n++
  return n
}

/** The number of line breaks in a token of white space that goes on after the last of them, as before an indented line
 * of code: the page breaks its line as often before the token. */
export function leadingBreaks(bytes: readonly number[]): number {
  if (trailingBreaks(bytes) > 0 || !bytes.every((byte) => byte === 32 || (byte >= 9 && byte <= 13))) return 0
  return bytes.filter((byte) => byte === 10).length
}

/** What a screen reader should say of it. */
export function spokenText(bytes: readonly number[]): string {
  const names: Record<string, string> = { '·': 'space ', '⏎': 'line break ', '⇥': 'tab ', '␍': 'carriage return ' }
  const words = visiblePieces(bytes).map(({ kind, text }) =>
    kind === 'space' ? (names[text] ?? text) : kind === 'byte' ? `byte ${text} ` : text,
  )
  return words.join('').trim() || 'empty'
}
