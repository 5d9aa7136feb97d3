// pieces.tsx: small parts that several panels use.
import { useStore } from './store'
import { visiblePieces, type Piece } from './token_text'
import { bytesOf, vocabStore } from './vocab'
import type { Token } from './types'

const shown = (pieces: Piece[]) => pieces.map(({ kind, text }) => (kind === 'text' ? text : <i class={kind}>{text}</i>))

/** A token with its invisible characters made visible. */
export const TokenText = ({ token }: { token: Token }) => <span class="piece">{shown(visiblePieces(token.bytes))}</span>
/** The same where only id and text are known. */
export function EntryText({ id, text }: { id: number; text: string }) {
  useStore(vocabStore, (state) => state.bytesOf)
  return <span class="piece">{shown(visiblePieces(bytesOf(id, text)))}</span>
}

/** A number for people that holds the exact one, in nats or as it is. */
export const Value = ({
  name,
  value,
  children,
}: {
  name: string
  value: number
  children: preact.ComponentChildren
}) => (
  <data data-name={name} value={Number.isFinite(value) ? String(value) : ''}>
    {children}
  </data>
)

interface ChoiceProps<T extends string> {
  legend: string
  options: { value: T; label: preact.ComponentChildren }[]
  value: T
  onChange(value: T): void
}

/** One of a few: radio buttons that look like one control. */
export function Choice<T extends string>({ legend, options, value, onChange }: ChoiceProps<T>) {
  return (
    <fieldset class="choice">
      <legend>{legend}</legend>
      {options.map((option) => (
        <label key={option.value}>
          <input
            type="radio"
            name={legend}
            value={option.value}
            checked={option.value === value}
            onChange={() => onChange(option.value)}
          />
          <span>{option.label}</span>
        </label>
      ))}
    </fieldset>
  )
}
