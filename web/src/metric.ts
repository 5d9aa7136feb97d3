// metric.ts: what colours a token. Cell k of a text is token k with the distribution that *predicted* it, at position
// k - 1; the first token has none, and one more cell at the end holds what the model expects next.
import { formatCount, formatNats, formatPercent, inUnit } from './units'
import type { Analysis, Entry, Metric, Position, Unit } from './types'

/** The distribution that cell k shows; undefined while it has not arrived, and for the first cell. */
export const positionOf = ({ positions, earlier }: Analysis, cell: number): Position | undefined =>
  positions[cell - 1] ?? earlier[cell - 1]

/** Cells of a text, the last being "what comes next". */
export const cellCount = (analysis: Analysis): number => (analysis.tokens.length > 0 ? analysis.tokens.length + 1 : 0)

export const logprobOf = (entry: Entry): number => entry.logprob[0] ?? -Infinity

/** Its value in nats, ranks or probabilities; NaN where there is none. */
export function metricValue(position: Position | undefined, metric: Metric): number {
  if (!position) return NaN
  if (metric === 'entropy') return position.entropy[0] ?? NaN
  if (metric === 'top1') return Math.exp(position.top[0] ? logprobOf(position.top[0]) : NaN)
  if (metric === 'surprisal') return position.next ? -(position.next.logprob[0] ?? -Infinity) : NaN
  if (metric === 'rank') return position.next?.rank ?? NaN
  const id = Number(metric.slice('pin:'.length))
  const entry = position.token_ids.find((candidate) => candidate.id === id)
  return entry ? Math.exp(logprobOf(entry)) : NaN
}

/** What the scale sees: ranks span many orders of magnitude, so their logarithm. */
export const scaled = (value: number, metric: Metric): number => (metric === 'rank' ? Math.log2(1 + value) : value)
export const unscaled = (at: number, metric: Metric): number => (metric === 'rank' ? 2 ** at - 1 : at)

export function formatMetric(value: number, metric: Metric, unit: Unit): string {
  if (Number.isNaN(value)) return '–'
  if (metric === 'surprisal' || metric === 'entropy') return formatNats(value, unit)
  if (metric === 'rank') return formatCount(Math.round(value))
  return formatPercent(value)
}

/** A difference, B minus A, with its sign. */
export function formatDifference(value: number, metric: Metric, unit: Unit): string {
  if (Number.isNaN(value)) return '–'
  const size = Math.abs(value)
  const text =
    metric === 'rank'
      ? formatCount(size)
      : metric === 'surprisal' || metric === 'entropy'
        ? formatNats(size, unit)
        : `${(size * 100).toFixed(1)}`
  return /^[0.,]*$/.test(text) ? '0' : `${value < 0 ? '−' : '+'}${text}`
}

export const metricNames: Record<'surprisal' | 'rank' | 'entropy' | 'top1', string> = {
  surprisal: 'Surprisal',
  rank: 'Rank',
  entropy: 'Entropy',
  top1: 'Top-1 probability',
}

export function metricUnit(metric: Metric, unit: Unit): string {
  if (metric === 'surprisal' || metric === 'entropy') return unit
  return metric === 'rank' ? 'rank (0 is the most likely), log scale' : 'probability'
}

/** Values of all cells; a cell without a value is NaN. */
export const cellValues = (analysis: Analysis, metric: Metric): number[] =>
  Array.from({ length: cellCount(analysis) }, (_, cell) => metricValue(positionOf(analysis, cell), metric))

export const toUnit = (value: number, metric: Metric, unit: Unit): number =>
  metric === 'surprisal' || metric === 'entropy' ? inUnit(value, unit) : value
