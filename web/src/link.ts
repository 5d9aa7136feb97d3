// link.ts: the view as a URL fragment, which browsers do not send: a text does not get into a server's log. Only what
// differs from the defaults is written. Reading takes anything: what makes no sense is left at its default.
import type { Metric, Source, Unit } from './types'

export type Side = 'a' | 'b'
export interface Cell {
  side: Side
  cell: number
}

export interface View {
  a: Source
  b: Source | null
  special: boolean
  pins: number[]
  metric: Metric
  difference: boolean // colours show B minus A
  unit: Unit
  numbers: boolean // under the tokens
  temperature: number
  topN: number
  selected: Cell | null
}

export const TOP_NS = [10, 20, 50, 100]
export const TEMPERATURE_MIN = 0.01
export const TEMPERATURE_MAX = 3

export const defaultView: View = {
  a: { text: '', ids: null },
  b: null,
  special: false,
  pins: [],
  metric: 'surprisal',
  difference: true,
  unit: 'bits',
  numbers: false,
  temperature: 1,
  topN: 20,
  selected: null,
}

function writeSource(params: URLSearchParams, name: Side, source: Source): void {
  params.set(name, source.text)
  if (source.ids) params.set(`${name}-ids`, source.ids.join('.'))
}

/** `nVocab`: the size of the vocabulary that the view's token ids are of. */
export function writeLink(view: View, nVocab: number | null): string {
  const params = new URLSearchParams()
  writeSource(params, 'a', view.a)
  if (view.b) writeSource(params, 'b', view.b)
  if (view.special) params.set('special', '1')
  if (view.pins.length > 0) params.set('pins', view.pins.join('.'))
  if (view.metric !== defaultView.metric) params.set('by', view.metric)
  if (!view.difference) params.set('difference', '0')
  if (view.unit !== defaultView.unit) params.set('unit', view.unit)
  if (view.numbers) params.set('numbers', '1')
  if (view.temperature !== defaultView.temperature) params.set('T', String(view.temperature))
  if (view.topN !== defaultView.topN) params.set('top', String(view.topN))
  if (view.selected) params.set('at', `${view.selected.side}${view.selected.cell}`)
  if (nVocab !== null && (view.pins.length > 0 || view.a.ids || view.b?.ids)) params.set('vocabulary', String(nVocab))
  return params.toString()
}

const readIds = (text: string | null): number[] =>
  text
    ? text
        .split('.')
        .map(Number)
        .filter((id) => Number.isInteger(id) && id >= 0)
    : []

function readSource(params: URLSearchParams, name: Side): Source | null {
  const text = params.get(name)
  if (text === null) return null
  const ids = readIds(params.get(`${name}-ids`))
  return { text, ids: ids.length > 0 ? ids : null }
}

function readMetric(text: string | null, pins: number[]): Metric {
  const known = ['surprisal', 'rank', 'entropy', 'top1', ...pins.map((pin) => `pin:${pin}`)].includes(text ?? '')
  return known ? (text as Metric) : defaultView.metric
}

function readCell(text: string | null): Cell | null {
  const match = /^([ab])(\d+)$/.exec(text ?? '')
  return match ? { side: match[1] as Side, cell: Number(match[2]) } : null
}

/** The view on a model with another vocabulary. */
export const withoutIds = (view: View): View => ({
  ...view,
  a: { ...view.a, ids: null },
  b: view.b && { ...view.b, ids: null },
  pins: [],
  metric: view.metric.startsWith('pin:') ? defaultView.metric : view.metric,
})

/** null: the fragment holds no text. `nVocab`: as written, or null. */
export function readLink(fragment: string): { view: View; nVocab: number | null } | null {
  const params = new URLSearchParams(fragment.replace(/^#/, ''))
  const a = readSource(params, 'a')
  if (!a) return null
  const temperature = Number(params.get('T') ?? 1)
  const topN = Number(params.get('top'))
  const pins = readIds(params.get('pins')).slice(0, 16)
  const view: View = {
    a,
    b: readSource(params, 'b'),
    special: params.get('special') === '1',
    pins,
    metric: readMetric(params.get('by'), pins),
    difference: params.get('difference') !== '0',
    unit: params.get('unit') === 'nats' ? 'nats' : 'bits',
    numbers: params.get('numbers') === '1',
    temperature: temperature >= TEMPERATURE_MIN && temperature <= TEMPERATURE_MAX ? temperature : 1,
    topN: TOP_NS.includes(topN) ? topN : defaultView.topN,
    selected: readCell(params.get('at')),
  }
  return { view, nVocab: Number(params.get('vocabulary')) || null }
}
