// text_panel.tsx: the coloured texts with their legend, and what colours them.
import { useEffect, useRef } from 'preact/hooks'
import { colouring, counterpart, pairing } from './colouring'
import type { Cell, Side } from './link'
import { formatDifference, formatMetric, metricNames, metricUnit, metricValue, positionOf, unscaled } from './metric'
import { Choice, TokenText, Value } from './pieces'
import { gradient } from './scale'
import { hover, isChanged, select, store, type State } from './session'
import { useStore } from './store'
import { themeStore } from './theme'
import { TokensView } from './tokens_view'
import { formatNats, formatNumber } from './units'
import type { Metric, Unit } from './types'

const inColours = (state: State) => colouring(state)

function Legend() {
  const { kind, domain, mean } = useStore(store, inColours)
  const metric = useStore(store, (state) => state.metric)
  const unit = useStore(store, (state) => state.unit)
  const theme = useStore(themeStore, (state) => state.theme)
  const bar = useRef<HTMLDivElement>(null)
  useEffect(() => {
    if (bar.current) bar.current.style.backgroundImage = gradient(theme, kind)
  })
  if (!domain) return null
  const differs = kind === 'diverging'
  const format = (at: number) =>
    differs
      ? metric === 'rank'
        ? `×${2 ** Math.abs(Math.round(at))}`
        : formatDifference(at, metric, unit)
      : formatMetric(unscaled(at, metric), metric, unit)
  const title = differs ? `B minus A, ${metricUnit(metric, unit)}` : metricUnit(metric, unit)
  return (
    <figure class="legend" id="legend">
      <div ref={bar} class="ramp" aria-hidden="true" />
      <figcaption>
        <span>{`${domain.clampedLow ? '≤ ' : ''}${format(domain.low)}`}</span>
        <span>{differs ? '0' : `mean ${format(mean)}`}</span>
        <span>{`${domain.clampedHigh ? '≥ ' : ''}${format(domain.high)}`}</span>
      </figcaption>
      <small title="The scale ends 2.5 standard deviations from the mean, or where the values do">
        {title} · clamped at µ ± 2.5 σ
      </small>
    </figure>
  )
}

function Toolbar() {
  const metric = useStore(store, (state) => state.metric)
  const unit = useStore(store, (state) => state.unit)
  const numbers = useStore(store, (state) => state.numbers)
  const difference = useStore(store, (state) => state.difference)
  const pins = useStore(store, (state) => state.pinTokens)
  const two = useStore(store, (state) => state.analyses.b !== null)
  const options: { value: Metric; label: preact.ComponentChildren }[] = Object.entries(metricNames).map(
    ([value, label]) => ({ value: value as Metric, label }),
  )
  for (const pin of pins)
    options.push({
      value: `pin:${pin.id}`,
      label: (
        <>
          p(
          <TokenText token={pin} />)
        </>
      ),
    })
  return (
    <div class="toolbar">
      <Choice legend="Colour by" options={options} value={metric} onChange={(value) => store.set({ metric: value })} />
      <Choice
        legend="Unit"
        options={(['bits', 'nats'] as Unit[]).map((value) => ({ value, label: value }))}
        value={unit}
        onChange={(value) => store.set({ unit: value })}
      />
      <label class="inline">
        <input
          type="checkbox"
          id="numbers"
          checked={numbers}
          onChange={(event) => store.set({ numbers: event.currentTarget.checked })}
        />
        Numbers
      </label>
      {two && (
        <label class="inline">
          <input
            type="checkbox"
            id="difference"
            checked={difference}
            onChange={(event) => store.set({ difference: event.currentTarget.checked })}
          />
          Difference B − A
        </label>
      )}
    </div>
  )
}

/** What follows a token's text when a screen reader says it. */
function wordsOf(state: State, { side, cell }: Cell): string {
  const position = state.analyses[side] ? positionOf(state.analyses[side], cell) : undefined
  if (!position) return ', no distribution before it'
  if (!position.next)
    return `, entropy ${formatMetric(metricValue(position, 'entropy'), 'entropy', state.unit)} ${state.unit}`
  const surprisal = formatMetric(metricValue(position, 'surprisal'), 'surprisal', state.unit)
  return `, surprisal ${surprisal} ${state.unit}, rank ${position.next.rank}`
}

/** Brings a view to what the state says. */
function update(view: TokensView, side: Side, state: State): void {
  view.build(state.analyses[side]?.tokens ?? [], pairing(state))
  view.colour({
    colouring: colouring(state),
    theme: themeStore.get().theme,
    metric: state.metric,
    unit: state.unit,
    numbers: state.numbers,
  })
  const { selected, hovered } = state
  view.setSelected(selected?.side === side ? selected.cell : -1)
  if (selected?.side === side) view.describe(selected.cell, wordsOf(state, selected))
  const shown = hovered ?? selected
  const mark = !shown
    ? -1
    : shown.side === side
      ? shown === hovered
        ? shown.cell
        : -1
      : counterpart(state, shown.side, shown.cell)
  view.setMarked(mark)
  view.placeRings()
}

/** Means over a whole text. */
function SummaryLine({ side, name }: { side: Side; name: string }) {
  const row = useStore(store, (state) => state.analyses[side]?.summary[0])
  const unit = useStore(store, (state) => state.unit)
  if (!row || row.cross_entropy === null || row.perplexity === null) return null
  return (
    <p class="summary">
      {name}mean surprisal{' '}
      <Value name={`cross_entropy-${side}`} value={row.cross_entropy}>
        {formatNats(row.cross_entropy, unit)} {unit}
      </Value>
      , perplexity {formatNumber(row.perplexity)}
      {row.bits_per_byte !== null && `, ${formatNumber(row.bits_per_byte)} bits per byte`}, mean entropy{' '}
      {formatNats(row.mean_entropy ?? NaN, unit)} {unit}
    </p>
  )
}

function TokenList({ side, label, onEnter }: { side: Side; label: string; onEnter: () => void }) {
  const root = useRef<HTMLDivElement>(null)
  const enter = useRef(onEnter)
  enter.current = onEnter
  useEffect(() => {
    const view = new TokensView(root.current!, side, {
      select: (cell) => select({ side, cell }),
      hover: (cell) => hover(cell === null ? null : { side, cell }),
      enter: () => enter.current(),
    })
    let frame = 0
    const later = () => (frame ||= requestAnimationFrame(() => ((frame = 0), update(view, side, store.get()))))
    later()
    const stops = [store.subscribe(later), themeStore.subscribe(later)]
    return () => {
      cancelAnimationFrame(frame)
      stops.forEach((stop) => stop())
      view.destroy()
    }
  }, [])
  return (
    <div
      ref={root}
      class="tokens"
      id={`tokens-${side}`}
      role="listbox"
      aria-label={label}
      aria-orientation="horizontal"
    />
  )
}

export function TextPanel({ onEnter }: { onEnter: () => void }) {
  const has = useStore(store, (state) => (state.analyses.a?.tokens.length ?? 0) > 0)
  const two = useStore(store, (state) => (state.analyses.b?.tokens.length ?? 0) > 0)
  const changed = useStore(store, isChanged)
  const words = two ? 'A bar marks the stretches that differ; the rest is side by side.' : ''
  if (!has) return null
  return (
    <section class="text" aria-label="Tokens">
      <Toolbar />
      <div class={two ? 'sides two' : 'sides'}>
        <TokenList side="a" label={two ? 'Tokens of text A' : 'Tokens'} onEnter={onEnter} />
        {two && <TokenList side="b" label="Tokens of text B" onEnter={onEnter} />}
      </div>
      <div class="under">
        <div class="hint">
          {changed && <p class="changed">The text has changed since; Analyse computes the new one.</p>}
          <SummaryLine side="a" name={two ? 'A: ' : ''} />
          {two && <SummaryLine side="b" name="B: " />}
          Each token is coloured by the distribution that the model had before it. Arrow keys walk, Enter goes to the
          alternatives. {words}
        </div>
        <Legend />
      </div>
    </section>
  )
}
