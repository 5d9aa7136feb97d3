// sweep_panel.tsx: entropy and cross-entropy of the whole texts against temperature: one request with 32 temperatures a
// text, of which only the summary is kept.
import { useEffect, useRef, useState } from 'preact/hooks'
import type uPlot from 'uplot'
import { Problem, streamDistribution } from './api'
import { drawChart, type Line } from './charts'
import type { Side } from './link'
import { Value } from './pieces'
import { SIDES, store, type State } from './session'
import { useStore } from './store'
import { themeStore } from './theme'
import { formatNats, inUnit } from './units'
import type { Summary, Unit } from './types'

const TEMPERATURES = [0.01, 0.05, ...Array.from({ length: 30 }, (_, i) => (i + 1) / 10)]

interface Sweep {
  of: string // the texts it belongs to
  a: Summary[]
  b: Summary[]
}

/** What a sweep is of: the texts whose tokens are shown. */
const textsOf = ({ analyses }: State) =>
  JSON.stringify(SIDES.map((side) => [analyses[side]?.request.prompt, analyses[side]?.request.special]))

async function sweepOne(
  side: Side,
  signal: AbortSignal,
  progress: (done: number, all: number) => void,
): Promise<Summary[]> {
  const shown = store.get().analyses[side]?.request
  if (!shown) return []
  let [done, all, summary] = [0, 0, [] as Summary[]]
  const { token_ids: _, ...request } = shown
  await streamDistribution(
    { ...request, top_n: 0, temperatures: TEMPERATURES },
    {
      head: (head) => (all = head.usage.positions),
      tokens: () => undefined,
      positions: (positions) => progress((done += positions.length), all),
      summary: (found) => (summary = found),
      timing: () => undefined,
    },
    signal,
  )
  return summary
}

/** Cross-entropy at small T is off any scale: the axis ends where both curves are of interest. */
function yMaxOf(sweep: Sweep, unit: Unit): number {
  const rows = [...sweep.a, ...sweep.b]
  const entropies = rows.map((row) => row.mean_entropy ?? 0)
  const nearOne = rows.filter((row) => row.temperature >= 0.4).map((row) => row.cross_entropy ?? 0)
  return inUnit(Math.max(...entropies, ...nearOne) * 1.1, unit)
}

function linesOf(sweep: Sweep, unit: Unit): Line[] {
  return SIDES.flatMap((side) => {
    const rows = sweep[side]
    if (rows.length === 0) return []
    const name = sweep.b.length > 0 ? ` ${side.toUpperCase()}` : ''
    const values = (key: 'cross_entropy' | 'mean_entropy') =>
      rows.map((row) => (row[key] === null ? null : inUnit(row[key], unit)))
    return [
      { label: `cross-entropy${name}`, colour: '--series-2', values: values('cross_entropy'), dashed: side === 'b' },
      { label: `entropy${name}`, colour: '--series-1', values: values('mean_entropy'), dashed: side === 'b' },
    ]
  })
}

const lowest = (rows: Summary[]): Summary | undefined =>
  rows.reduce<Summary | undefined>(
    (best, row) => ((row.cross_entropy ?? Infinity) < (best?.cross_entropy ?? Infinity) ? row : best),
    undefined,
  )

function Chart({ sweep, unit }: { sweep: Sweep; unit: Unit }) {
  const root = useRef<HTMLDivElement>(null)
  const theme = useStore(themeStore, (state) => state.theme)
  useEffect(() => {
    const box = root.current!
    let chart: uPlot | null = null
    const draw = () => {
      chart?.destroy()
      chart = drawChart(box, {
        height: 220,
        x: TEMPERATURES,
        xLabel: 'temperature',
        yLabel: `${unit} per token`,
        lines: linesOf(sweep, unit),
        yMax: yMaxOf(sweep, unit),
      })
    }
    const resized = new ResizeObserver(draw)
    resized.observe(box)
    return () => {
      resized.disconnect()
      chart?.destroy()
    }
  }, [sweep, unit, theme])
  return <div ref={root} class="chart" id="chart-sweep" aria-hidden="true" />
}

function Table({ sweep, unit }: { sweep: Sweep; unit: Unit }) {
  const sides = SIDES.filter((side) => sweep[side].length > 0)
  return (
    <details>
      <summary>Numbers, {unit} per token</summary>
      <table class="numbers" id="sweep-table">
        <thead>
          <tr>
            <th scope="col">T</th>
            {sides.map((side) => [
              <th scope="col">Cross-entropy {sides.length > 1 && side.toUpperCase()}</th>,
              <th scope="col">Entropy {sides.length > 1 && side.toUpperCase()}</th>,
            ])}
          </tr>
        </thead>
        <tbody>
          {TEMPERATURES.map((temperature, i) => (
            <tr key={temperature}>
              <th scope="row">{temperature}</th>
              {sides.map((side) =>
                (['cross_entropy', 'mean_entropy'] as const).map((key) => {
                  const value = sweep[side][i]?.[key] ?? NaN
                  return (
                    <td>
                      <Value name={`${key}-${side}-${temperature}`} value={value}>
                        {Number.isNaN(value) ? '–' : formatNats(value, unit)}
                      </Value>
                    </td>
                  )
                }),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  )
}

function Words({ sweep, unit }: { sweep: Sweep; unit: Unit }) {
  const words = SIDES.flatMap((side) => {
    const best = lowest(sweep[side])
    if (!best || best.cross_entropy === null) return []
    const name = sweep.b.length > 0 ? `of ${side.toUpperCase()} ` : ''
    return [
      `Cross-entropy ${name}is lowest at T = ${best.temperature}: ${formatNats(best.cross_entropy, unit)} ${unit} per token.`,
    ]
  })
  return <p id="sweep-words">{words.join(' ')}</p>
}

export function SweepPanel() {
  const has = useStore(store, (state) => (state.analyses.a?.tokens.length ?? 0) > 0)
  const texts = useStore(store, textsOf)
  const unit = useStore(store, (state) => state.unit)
  const [sweep, setSweep] = useState<Sweep | null>(null)
  const [progress, setProgress] = useState<[number, number] | null>(null)
  const aborter = useRef<AbortController | null>(null)
  if (!has) return null

  const start = async () => {
    const own = new AbortController()
    aborter.current = own
    setProgress([0, 0])
    try {
      const [a, b] = [
        await sweepOne('a', own.signal, (...now) => setProgress(now)),
        await sweepOne('b', own.signal, (...now) => setProgress(now)),
      ]
      setSweep({ of: texts, a, b })
    } catch (error) {
      if (!own.signal.aborted) store.set({ problem: error instanceof Problem ? error : new Problem(String(error)) })
    }
    setProgress(null)
  }

  const current = sweep?.of === texts ? sweep : null
  return (
    <section class="sweep" aria-labelledby="sweep-title">
      <h2 id="sweep-title">Over temperatures</h2>
      {!current && !progress && (
        <p class="row">
          <button type="button" id="sweep" onClick={() => void start()}>
            Sweep T from 0.01 to 3
          </button>
          <span class="hint">
            Entropy and cross-entropy of the whole text at {TEMPERATURES.length} temperatures, from one pass.
          </span>
        </p>
      )}
      {progress && (
        <div class="progress">
          <progress
            aria-label="Positions of the sweep"
            max={progress[1] || 1}
            value={progress[1] ? progress[0] : undefined}
          />
          <button type="button" onClick={() => aborter.current?.abort()}>
            Cancel
          </button>
        </div>
      )}
      {current && (
        <>
          <p class="keys">
            <span class="key key-2">cross-entropy</span>
            <span class="key key-1">mean entropy</span>
            {current.b.length > 0 && <small>A solid, B dashed</small>}
          </p>
          <Chart sweep={current} unit={unit} />
          <Words sweep={current} unit={unit} />
          <Table sweep={current} unit={unit} />
        </>
      )}
    </section>
  )
}
