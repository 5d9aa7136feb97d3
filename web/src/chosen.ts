// chosen.ts: what the details panel shows of one cell at one temperature: from the whole distribution where its logits
// are there (any temperature, float64), else from the streamed reply (temperature 1, its top entries).
import { counterpart } from './colouring'
import type { Distribution } from './distribution'
import type { Cell, Side } from './link'
import { logprobOf, positionOf } from './metric'
import { logitsKey, type State } from './session'
import type { Analysis, Position, Token } from './types'

export interface Bar {
  id: number
  text: string
  rank: number
  logprob: number
  actual: boolean
}

export interface Chosen {
  side: Side
  cell: number
  analysis: Analysis
  token: Token | null // null: what comes next
  position: Position | undefined // undefined: the first token, or not there yet
  whole: Distribution | null
  temperature: number // of the numbers below
  rank: number
  surprisal: number // nats
  entropy: number
  varentropy: number
  logsumexp: number
  top1: number // probability
  bars: Bar[]
  pins: { token: Token; logprob: number }[]
}

/** The cell to show, and the one that stands for it in the other text. */
export function chosenCells(state: State): Cell[] {
  const cell = state.hovered ?? state.selected
  if (!cell || !state.analyses[cell.side]) return []
  const side = cell.side === 'a' ? 'b' : 'a'
  const other = counterpart(state, cell.side, cell.cell)
  return other < 0 ? [cell] : [cell, { side, cell: other }]
}

function barsOf(position: Position, logprobs: (ids: number[]) => number[], wanted: number): Bar[] {
  const entries: { id: number; text: string; rank: number }[] = []
  position.top.slice(0, wanted).forEach((entry, i) => {
    const before = position.top[i - 1]
    const tied = before !== undefined && logprobOf(before) === logprobOf(entry)
    entries.push({ id: entry.id, text: entry.text, rank: tied ? entries[i - 1]!.rank : i })
  })
  const next = position.next
  if (next && !entries.some(({ id }) => id === next.id)) entries.push({ id: next.id, text: next.text, rank: next.rank })
  const values = logprobs(entries.map(({ id }) => id))
  return entries.map((entry, i) => ({ ...entry, logprob: values[i]!, actual: entry.id === next?.id }))
}

/** Log-probabilities at temperature 1 that the reply holds; NaN for other ids. */
function streamed(position: Position): (ids: number[]) => number[] {
  const known = new Map<number, number>()
  for (const entry of [...position.top, ...position.token_ids]) known.set(entry.id, logprobOf(entry))
  if (position.next) known.set(position.next.id, position.next.logprob[0] ?? -Infinity)
  return (ids) => ids.map((id) => known.get(id) ?? NaN)
}

export function look(state: State, { side, cell }: Cell): Chosen | null {
  const analysis = state.analyses[side]
  if (!analysis) return null
  const position = positionOf(analysis, cell)
  const whole = cell > 0 ? (state.logits.get(logitsKey(analysis, cell)) ?? null) : null
  const temperature = whole ? state.temperature : 1
  const logprobs = !position
    ? () => []
    : whole
      ? (ids: number[]) => whole.logprobs(ids, temperature)
      : streamed(position)
  const stats = whole?.stats(temperature)
  const first = position?.top[0]
  return {
    side,
    cell,
    analysis,
    token: analysis.tokens[cell] ?? null,
    position,
    whole,
    temperature,
    rank: position?.next?.rank ?? NaN,
    surprisal: position?.next ? -(logprobs([position.next.id])[0] ?? NaN) : NaN,
    entropy: stats?.entropy ?? position?.entropy[0] ?? NaN,
    varentropy: stats?.varentropy ?? position?.varentropy[0] ?? NaN,
    logsumexp: stats?.logsumexp ?? position?.logsumexp[0] ?? NaN,
    top1: first ? Math.exp(logprobs([first.id])[0] ?? NaN) : NaN,
    bars: position ? barsOf(position, logprobs, state.topN) : [],
    pins: state.pinTokens.map((token) => ({ token, logprob: logprobs([token.id])[0] ?? NaN })),
  }
}
