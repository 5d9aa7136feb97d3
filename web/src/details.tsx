// details.tsx: one position's distribution: numbers, bars, the temperature slider, and other tokens to put in its place.
// Beside a second text both are shown, with the divergence between them.
import { useState } from 'preact/hooks'
import { chosenCells, look, type Bar, type Chosen } from './chosen'
import { TEMPERATURE_MAX, TEMPERATURE_MIN } from './link'
import { EntryText, TokenText, Value } from './pieces'
import { pinToken, scheduleLogits, store, tryAlternative, tryText, writeAddress, type State } from './session'
import { useStore } from './store'
import { formatCount, formatNats, formatNumber, formatPercent, inUnit } from './units'
import { bytesOf } from './vocab'
import type { Unit } from './types'

const tokenOf = ({ id, text }: Bar) => ({ id, text, bytes: bytesOf(id, text) })

function Slider({ ready }: { ready: boolean }) {
  const temperature = useStore(store, (state) => state.temperature)
  const set = (value: number) => store.set({ temperature: value })
  return (
    <div class="slider">
      <label for="temperature">Temperature</label>
      <input
        id="temperature"
        type="range"
        min={TEMPERATURE_MIN}
        max={TEMPERATURE_MAX}
        step={0.01}
        value={temperature}
        disabled={!ready}
        aria-valuetext={`T = ${temperature.toFixed(2)}`}
        onInput={(event) => set(Number(event.currentTarget.value))}
        onChange={writeAddress}
      />
      <output for="temperature">T = {temperature.toFixed(2)}</output>
      <button
        type="button"
        title="Back to T = 1"
        aria-label="Back to T = 1"
        disabled={temperature === 1}
        onClick={() => (set(1), writeAddress())}
      >
        1
      </button>
    </div>
  )
}

type Row = { name: string; label: string; of: (chosen: Chosen) => number; show: (value: number, unit: Unit) => string }

const nats = (value: number, unit: Unit) => (Number.isNaN(value) ? '–' : `${formatNats(value, unit)} ${unit}`)
const rows: Row[] = [
  {
    name: 'rank',
    label: 'Rank',
    of: (chosen) => chosen.rank,
    show: (value) => (Number.isNaN(value) ? '–' : formatCount(value)),
  },
  { name: 'surprisal', label: 'Surprisal', of: (chosen) => chosen.surprisal, show: nats },
  {
    name: 'probability',
    label: 'Probability',
    of: (chosen) => Math.exp(-chosen.surprisal),
    show: (value) => formatPercent(value),
  },
  { name: 'entropy', label: 'Entropy', of: (chosen) => chosen.entropy, show: nats },
  {
    name: 'varentropy',
    label: 'Varentropy',
    of: (chosen) => chosen.varentropy,
    show: (value, unit) => (Number.isNaN(value) ? '–' : `${formatNumber(inUnit(inUnit(value, unit), unit))} ${unit}²`),
  },
  { name: 'top1', label: 'Top-1 probability', of: (chosen) => chosen.top1, show: (value) => formatPercent(value) },
  {
    name: 'logsumexp',
    label: 'Logsumexp of logits / T',
    of: (chosen) => chosen.logsumexp,
    show: (value) => (Number.isNaN(value) ? '–' : `${formatNumber(value)} nats`),
  },
]

function Numbers({ shown, unit }: { shown: Chosen[]; unit: Unit }) {
  return (
    <table class="numbers">
      {shown.length > 1 && (
        <thead>
          <tr>
            <td />
            {shown.map(({ side }) => (
              <th key={side} scope="col">
                {side.toUpperCase()}
              </th>
            ))}
          </tr>
        </thead>
      )}
      <tbody>
        {rows.map(({ name, label, of, show }) => (
          <tr key={name}>
            <th scope="row">{label}</th>
            {shown.map((chosen) => (
              <td key={chosen.side}>
                <Value name={`${name}-${chosen.side}`} value={of(chosen)}>
                  {show(of(chosen), unit)}
                </Value>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  )
}

interface BarRowProps {
  bar: Bar
  chosen: Chosen
  other: number // its log-probability in the other text, or NaN
}

function BarRow({ bar, chosen, other }: BarRowProps) {
  const probability = Math.exp(bar.logprob)
  const target = { side: chosen.side, cell: chosen.cell }
  return (
    <li class={bar.actual ? 'actual' : undefined} data-id={bar.id}>
      <button
        type="button"
        class="bar"
        title={`id ${bar.id}, rank ${formatCount(bar.rank)} at any temperature. Click to put it in the token’s place.`}
        disabled={bar.actual}
        onClick={() => void tryAlternative(target, [bar.id])}
      >
        <span class="rank">{formatCount(bar.rank)}</span>
        <EntryText id={bar.id} text={bar.text} />
        <span class="track" aria-hidden="true">
          <span class="fill" style={{ width: `${probability * 100}%` }} />
          {!Number.isNaN(other) && <span class="fill other" style={{ width: `${Math.exp(other) * 100}%` }} />}
        </span>
        <Value name="logprob" value={bar.logprob}>
          {formatPercent(probability)}
        </Value>
        <span class="hidden">{bar.actual ? 'the token of the text' : 'put it in its place'}</span>
      </button>
      <button
        type="button"
        class="pin"
        title="Pin: show its probability at every position"
        aria-label={`Pin ${bar.text.trim() || 'this token'}`}
        onClick={() => pinToken(tokenOf(bar))}
      >
        +
      </button>
    </li>
  )
}

function Bars({ chosen, other }: { chosen: Chosen; other: Chosen | undefined }) {
  const ids = chosen.bars.map(({ id }) => id)
  const whole = other?.whole
  const others = whole
    ? whole.logprobs(ids, chosen.temperature)
    : ids.map((id) => other?.bars.find((bar) => bar.id === id)?.logprob ?? NaN)
  return (
    <ol class="bars" id="bars">
      {chosen.bars.map((bar, i) => (
        <BarRow key={bar.id} bar={bar} chosen={chosen} other={others[i]!} />
      ))}
    </ol>
  )
}

function Divergence({ shown, unit }: { shown: Chosen[]; unit: Unit }) {
  const [a, b] = shown
  if (!a?.whole || !b?.whole) return null
  const [ab, ba] = [a.whole.klTo(b.whole, a.temperature), b.whole.klTo(a.whole, a.temperature)]
  return (
    <p class="divergence">
      KL(A‖B){' '}
      <Value name="kl-ab" value={ab}>
        {nats(ab, unit)}
      </Value>
      , KL(B‖A){' '}
      <Value name="kl-ba" value={ba}>
        {nats(ba, unit)}
      </Value>
      , over the whole vocabulary
    </p>
  )
}

function Pins({ shown }: { shown: Chosen[] }) {
  const pins = shown[0]?.pins ?? []
  if (pins.length === 0 || !shown[0]?.position) return null
  return (
    <table class="numbers" id="pinned">
      <caption>Pinned tokens here</caption>
      <tbody>
        {pins.map(({ token }, i) => (
          <tr key={token.id}>
            <th scope="row">
              <TokenText token={token} />
            </th>
            {shown.map((chosen) => (
              <td key={chosen.side}>
                <Value name={`pin-${token.id}-${chosen.side}`} value={chosen.pins[i]!.logprob}>
                  {formatPercent(Math.exp(chosen.pins[i]!.logprob))}
                </Value>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  )
}

function OtherToken({ chosen }: { chosen: Chosen }) {
  const [text, setText] = useState('')
  return (
    <form
      class="row"
      onSubmit={(event) => {
        event.preventDefault()
        if (text !== '') void tryText({ side: chosen.side, cell: chosen.cell }, text)
        setText('')
      }}
    >
      <label for="other-token">{chosen.token ? 'Put in its place' : 'Go on with'}</label>
      <input
        id="other-token"
        size={14}
        value={text}
        title="A leading space counts"
        placeholder="␣London"
        onInput={(event) => setText(event.currentTarget.value.replaceAll('␣', ' '))}
      />
      <button type="submit" disabled={text === ''}>
        Try
      </button>
    </form>
  )
}

const before = ({ analysis, cell }: Chosen) => analysis.tokens.slice(Math.max(0, cell - 12), cell)

function Heading({ chosen }: { chosen: Chosen }) {
  return (
    <>
      <h2 id="details-title">
        {chosen.token ? <TokenText token={chosen.token} /> : 'What comes next'}
        <small>
          {chosen.token
            ? `token ${formatCount(chosen.cell)} · id ${chosen.token.id}`
            : `after ${formatCount(chosen.cell)} tokens`}
        </small>
      </h2>
      {chosen.cell > 0 && (
        <p class="context">
          …{' '}
          {before(chosen).map((token, i) => (
            <TokenText key={i} token={token} />
          ))}{' '}
          <b>?</b>
        </p>
      )}
    </>
  )
}

/** Where the numbers below come from, and what to do for those of other temperatures. */
function WhereFrom({ chosen: { whole, cell } }: { chosen: Chosen }) {
  const hovered = useStore(store, (state) => state.hovered !== null)
  const failed = useStore(store, (state) => state.logitsProblem !== null)
  return (
    <p class="source" role="status">
      {whole ? (
        `All ${formatCount(whole.logits.length)} logits are here; the slider needs no server.`
      ) : hovered ? (
        'At T = 1. Choose the token for other temperatures.'
      ) : failed ? (
        <>
          At T = 1. The whole distribution did not come.{' '}
          <button type="button" class="link" id="logits-again" onClick={scheduleLogits}>
            Try again
          </button>
        </>
      ) : (
        `At T = 1. The server computes all logits after ${cell === 1 ? 'the first token' : `${formatCount(cell)} tokens`} …`
      )}
    </p>
  )
}

const shownOf = (state: State) => state // every part of it matters here

/** Escape goes back to the token. */
function onKey(event: KeyboardEvent) {
  if (event.key === 'Escape') document.querySelector<HTMLElement>('[role=option][aria-selected=true]')?.focus()
}

export function Details() {
  const state = useStore(store, shownOf)
  const shown = chosenCells(state).flatMap((cell) => look(state, cell) ?? [])
  const [chosen, other] = shown
  const inOrder = shown.toSorted((one, two) => one.side.localeCompare(two.side))
  if (!state.analyses.a?.tokens.length) return null
  if (!chosen) {
    return (
      <aside class="details" aria-label="Distribution">
        <p class="hint">Point at a token, or choose one, to see what the model expected there.</p>
      </aside>
    )
  }
  return (
    <aside class="details" aria-labelledby="details-title" onKeyDown={onKey}>
      <Heading chosen={chosen} />
      {chosen.position ? (
        <>
          <Slider ready={chosen.whole !== null} />
          <WhereFrom chosen={chosen} />
          <Numbers shown={inOrder} unit={state.unit} />
          <Divergence shown={inOrder} unit={state.unit} />
          {other && (
            <p class="hint">{`Thick bars: text ${chosen.side.toUpperCase()}. Thin ones: text ${other.side.toUpperCase()}.`}</p>
          )}
          <Bars chosen={chosen} other={other} />
          <OtherToken chosen={chosen} />
          <Pins shown={inOrder} />
        </>
      ) : (
        <p class="hint">
          {chosen.cell === 0
            ? 'Nothing comes before the first token, so the model had no distribution for it.'
            : 'Not computed yet.'}
        </p>
      )}
    </aside>
  )
}
