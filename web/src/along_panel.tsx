// along_panel.tsx: along the text: entropy as a line, and below it the probabilities of pinned tokens.
import { useEffect, useRef } from 'preact/hooks'
import type uPlot from 'uplot'
import { drawChart, pointAt, type Line } from './charts'
import { columns, type Column } from './colouring'
import type { Cell } from './link'
import { metricValue, positionOf, toUnit } from './metric'
import { TokenText } from './pieces'
import { hover, select, store, type State } from './session'
import { useStore } from './store'
import { themeStore } from './theme'
import type { Metric } from './types'

const PIN_COLOURS = ['--series-1', '--series-2', '--series-3', '--series-4']

function lineOf(state: State, at: Column[], side: 'a' | 'b', metric: Metric, label: string, colour: string): Line {
  const analysis = state.analyses[side]
  const values = at.map((column) => {
    const value =
      analysis && column[side] > 0
        ? toUnit(metricValue(positionOf(analysis, column[side]), metric), metric, state.unit)
        : NaN
    return Number.isNaN(value) ? null : value
  })
  return { label, colour, values, dashed: side === 'b' }
}

function linesOf(state: State, at: Column[], pins: boolean): Line[] {
  const sides = state.analyses.b ? (['a', 'b'] as const) : (['a'] as const)
  return sides.flatMap((side) => {
    const name = state.analyses.b ? ` ${side.toUpperCase()}` : ''
    if (!pins) return [lineOf(state, at, side, 'entropy', `entropy${name}`, '--series-1')]
    return state.pinTokens.map((pin, i) =>
      lineOf(state, at, side, `pin:${pin.id}`, `p(${pin.text})${name}`, PIN_COLOURS[i % PIN_COLOURS.length]!),
    )
  })
}

const cellOf = (column: Column | undefined): Cell | null =>
  !column ? null : column.a >= 0 ? { side: 'a', cell: column.a } : { side: 'b', cell: column.b }

const drawnFrom = ({ analyses, unit, pinTokens }: State) => [analyses, unit, pinTokens]

function Along({ pins }: { pins: boolean }) {
  const root = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const box = root.current!
    let chart: uPlot | null = null
    let drawn: unknown[] = []
    let frame = 0
    let width = 0 // known once the box has been laid out
    let pointing = false // the pointer is over the chart, which then moves its cursor by itself
    let at: Column[] = []
    const draw = () => {
      frame = 0
      if (width === 0) return
      const state = store.get()
      const key = [...drawnFrom(state), themeStore.get().theme, width]
      if (!chart || key.some((part, i) => part !== drawn[i])) {
        drawn = key
        chart?.destroy()
        at = columns(state)
        chart = drawChart(box, {
          height: pins ? 90 : 100,
          x: at.map((_, i) => i),
          wholeX: true,
          yLabel: pins ? 'probability' : `entropy, ${state.unit}`,
          lines: linesOf(state, at, pins),
          ...(pins ? { yMax: 1 } : {}),
          onPoint: (index) => pointing && hover(index === null ? null : cellOf(at[index])),
          onClick: (index) => select(cellOf(at[index])),
        })
      }
      const shown = state.hovered ?? state.selected
      const index = shown ? at.findIndex((column) => column[shown.side] === shown.cell) : null
      const drawnChart = chart
      // A new chart has its scales only after it was drawn, in a microtask of its own.
      queueMicrotask(() => !pointing && chart === drawnChart && pointAt(drawnChart, index))
    }
    const later = () => (frame ||= requestAnimationFrame(draw))
    const resized = new ResizeObserver(([entry]) => {
      width = entry!.contentRect.width
      later()
    })
    resized.observe(box)
    const stops = [store.subscribe(later), themeStore.subscribe(later)]
    const enter = () => (pointing = true)
    const leave = () => {
      pointing = false
      hover(null)
    }
    box.addEventListener('pointerenter', enter)
    box.addEventListener('pointerleave', leave)
    return () => {
      cancelAnimationFrame(frame)
      resized.disconnect()
      stops.forEach((stop) => stop())
      chart?.destroy()
    }
  }, [])
  return <div ref={root} class="chart" id={pins ? 'chart-pins' : 'chart-entropy'} aria-hidden="true" />
}

export function AlongPanel() {
  const has = useStore(store, (state) => (state.analyses.a?.tokens.length ?? 0) > 1)
  const two = useStore(store, (state) => state.analyses.b !== null)
  const pins = useStore(store, (state) => state.pinTokens)
  if (!has) return null
  return (
    <section class="along" aria-labelledby="along-title">
      <h2 id="along-title">Along the text {two && <small>A solid, B dashed</small>}</h2>
      <Along pins={false} />
      {pins.length > 0 && (
        <>
          <p class="keys">
            {pins.map((pin, i) => (
              <span key={pin.id} class={`key key-${(i % PIN_COLOURS.length) + 1}`}>
                p(
                <TokenText token={pin} />)
              </span>
            ))}
          </p>
          <Along key={pins.map((pin) => pin.id).join()} pins={true} />
        </>
      )}
    </section>
  )
}
