// colouring.ts: the colour of every cell, from the state: one scale for both texts, or their difference. Pure; the last
// answer is kept, since many parts of the page ask for the same.
import { align, counterparts, type Segment } from './align'
import type { Side } from './link'
import { cellCount, cellValues, scaled } from './metric'
import { domainOf, fraction, type Domain } from './scale'
import type { State } from './session'
import type { Analysis, Metric } from './types'

export interface Colouring {
  kind: 'sequential' | 'diverging'
  domain: Domain | null // of scaled values; of a diverging one symmetric around 0
  mean: number // of the scaled values
  values: Record<Side, number[]> // [n_cells], not scaled; differences (B - A) where diverging; NaN: none
  at: Record<Side, number[]> // [n_cells] 0 … 1, or -1 … 1; NaN: none
}

export interface Pairing {
  segments: Segment[] // of tokens
  ofA: Int32Array // [n_cells] the cell of B, or -1; the end cells are a pair
  ofB: Int32Array
}

type Inputs = Pick<State, 'analyses' | 'metric' | 'difference' | 'b'>

let pairedFor: unknown[] = []
let pairedLast: Pairing | null = null

/** How the tokens of both texts stand to each other; null without a second text. */
export function pairing({ analyses: { a, b } }: Pick<State, 'analyses'>): Pairing | null {
  if (!a || !b || a.tokens.length === 0 || b.tokens.length === 0) return null
  if (pairedLast && pairedFor[0] === a.tokens && pairedFor[1] === b.tokens) return pairedLast
  const segments = align(
    a.tokens.map(({ id }) => id),
    b.tokens.map(({ id }) => id),
  )
  const [ofA, ofB] = counterparts(segments, a.tokens.length + 1, b.tokens.length + 1)
  // Where one token was exchanged for one, they are a pair too: their distributions are what is to be compared.
  for (const {
    same,
    a: [aFrom, aTo],
    b: [bFrom, bTo],
  } of segments) {
    if (same || aTo - aFrom !== bTo - bFrom) continue
    for (let i = 0; i < aTo - aFrom; i++) [ofA[aFrom + i], ofB[bFrom + i]] = [bFrom + i, aFrom + i]
  }
  ofA[a.tokens.length] = b.tokens.length
  ofB[b.tokens.length] = a.tokens.length
  pairedFor = [a.tokens, b.tokens]
  pairedLast = { segments, ofA, ofB }
  return pairedLast
}

const meanOf = (values: number[]): number => {
  const finite = values.filter(Number.isFinite)
  return finite.reduce((sum, value) => sum + value, 0) / finite.length
}

function valuesOf(analysis: Analysis | null, metric: Metric): number[] {
  return analysis ? cellValues(analysis, metric) : []
}

function sequential(a: number[], b: number[], metric: Metric): Colouring {
  const all = [...a, ...b].map((value) => scaled(value, metric))
  const domain = domainOf(all)
  const place = (value: number) => (Number.isNaN(value) || !domain ? NaN : fraction(scaled(value, metric), domain))
  return { kind: 'sequential', domain, mean: meanOf(all), values: { a, b }, at: { a: a.map(place), b: b.map(place) } }
}

function diverging(a: number[], b: number[], metric: Metric, { ofA, ofB }: Pairing): Colouring {
  const differ = (x: number, y: number) => (Number.isFinite(x) && Number.isFinite(y) ? y - x : NaN)
  const raw = a.map((value, i) => differ(value, b[ofA[i]!] ?? NaN))
  const onScale = a.map((value, i) => differ(scaled(value, metric), scaled(b[ofA[i]!] ?? NaN, metric)))
  const mirrored = domainOf(onScale.flatMap((value) => [value, -value]))
  const reach = mirrored?.high || 1
  const place = (value: number) => Math.min(1, Math.max(-1, value / reach))
  const toB = (values: number[]) => b.map((_, j) => values[ofB[j]!] ?? NaN)
  const domain = mirrored && { ...mirrored, low: -reach, high: reach }
  return {
    kind: 'diverging',
    domain,
    mean: meanOf(onScale),
    values: { a: raw, b: toB(raw) },
    at: { a: onScale.map(place), b: toB(onScale).map(place) },
  }
}

let colouredFor: unknown[] = []
let colouredLast: Colouring | null = null

export function colouring(state: Inputs): Colouring {
  const { analyses, metric, difference } = state
  const key = [analyses.a, analyses.b, metric, difference]
  if (colouredLast && key.every((part, i) => part === colouredFor[i])) return colouredLast
  const pairs = difference ? pairing(state) : null
  const [a, b] = [valuesOf(analyses.a, metric), valuesOf(analyses.b, metric)]
  colouredFor = key
  colouredLast = pairs ? diverging(a, b, metric, pairs) : sequential(a, b, metric)
  return colouredLast
}

/** The other text's cell that stands for this one, or -1. */
export function counterpart(state: Pick<State, 'analyses'>, side: Side, cell: number): number {
  const pairs = pairing(state)
  const other = (side === 'a' ? pairs?.ofA : pairs?.ofB)?.[cell] ?? -1
  const analysis = state.analyses[side === 'a' ? 'b' : 'a']
  return analysis && other < cellCount(analysis) ? other : -1
}

export interface Column {
  a: number // a cell, or -1
  b: number
}

/** Both texts on one axis, along which aligned cells have the same place; of one text alone its cells. */
export function columns(state: Pick<State, 'analyses'>): Column[] {
  const { a, b } = state.analyses
  const pairs = pairing(state)
  if (!pairs || !a || !b) return Array.from({ length: a ? cellCount(a) : 0 }, (_, i) => ({ a: i, b: -1 }))
  const found: Column[] = []
  for (const {
    a: [aFrom, aTo],
    b: [bFrom, bTo],
  } of pairs.segments) {
    for (let i = 0; i < Math.max(aTo - aFrom, bTo - bFrom); i++)
      found.push({ a: aFrom + i < aTo ? aFrom + i : -1, b: bFrom + i < bTo ? bFrom + i : -1 })
  }
  return [...found, { a: a.tokens.length, b: b.tokens.length }]
}
