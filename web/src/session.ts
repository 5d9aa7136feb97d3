// session.ts: what the page knows and does: its state, the requests that change it, nothing of how it looks.
//
// A text's analysis is kept while the request that made it stays the same, so that trying an alternative or adding a
// second text computes only what is new. Whole distributions (logits) are fetched for the chosen position alone, after
// a short rest, and the last ones are kept.
import { Problem, detokenize, fetchLogits, fetchModel, streamDistribution, tokenize, type ModelInfo } from './api'
import { Distribution } from './distribution'
import { defaultView, readLink, withoutIds, writeLink, type Cell, type Side, type View } from './link'
import { cellCount } from './metric'
import { createStore } from './store'
import type { Analysis, DistributionRequest, Source, Token } from './types'

export interface State extends View {
  model: ModelInfo | null
  analyses: Record<Side, Analysis | null>
  pinTokens: Token[] // of View.pins, as far as known
  hovered: Cell | null
  problem: Problem | null
  running: boolean
  logitsProblem: Problem | null // why those of the chosen position did not come
  logits: Map<string, Distribution> // by logitsKey; replaced when it changes
  said: string // for screen readers
}

export const store = createStore<State>({
  ...defaultView,
  model: null,
  analyses: { a: null, b: null },
  pinTokens: [],
  hovered: null,
  problem: null,
  running: false,
  logitsProblem: null,
  logits: new Map(),
  said: '',
})

export const SIDES: Side[] = ['a', 'b']
const KEPT_LOGITS = 16
const REST_MS = 120 // before the chosen position's logits are fetched
const ADDRESS_REST_MS = 250 // before the address is written: browsers allow some hundred changes in half a minute

const show = (error: unknown): void => {
  if (error instanceof DOMException && error.name === 'AbortError') return
  store.set({ problem: error instanceof Problem ? error : new Problem(`the page failed: ${String(error)}`) })
}

// ------------------------------------------------------------------------------------------------------- running

const sourceOf = (side: Side): Source | null => store.get()[side]

function withPins({ token_ids: _, ...request }: DistributionRequest): DistributionRequest {
  const { pins } = store.get()
  return pins.length > 0 ? { ...request, token_ids: pins } : request
}

export function requestFor(source: Source): DistributionRequest {
  const { special, topN } = store.get()
  const request: DistributionRequest = { prompt: source.ids ?? source.text, top_n: topN }
  if (special && !source.ids) request.special = true
  return withPins(request)
}

/** Whether a text, or how it is to be read, was changed since its tokens were computed. */
export const isChanged = ({ analyses, special, ...state }: State): boolean =>
  SIDES.some((side) => {
    const [source, request] = [state[side], analyses[side]?.request]
    if (!source || !request) return false
    const shown = JSON.stringify(request.prompt)
    return (
      shown !== JSON.stringify(source.ids ?? source.text) || (!source.ids && (request.special ?? false) !== special)
    )
  })

let aborter: AbortController | null = null

function setAnalysis(side: Side, change: Partial<Analysis>): void {
  const { analyses } = store.get()
  const analysis = analyses[side]
  if (analysis) store.set({ analyses: { ...analyses, [side]: { ...analysis, ...change } } })
}

/** What was shown stays until the new tokens are here, and the distributions of the same tokens until the new ones are:
 * nothing jumps. */
async function analyse(side: Side, request: DistributionRequest, signal: AbortSignal): Promise<void> {
  let fresh: Analysis = {
    request,
    head: null,
    tokens: [],
    positions: [],
    summary: [],
    timing: null,
    earlier: [],
    state: 'running',
  }
  const take = (change: Partial<Analysis>) => {
    if (signal.aborted) return
    fresh = { ...fresh, ...change, request: withPins(fresh.request) } // without pins removed meanwhile
    if (fresh.tokens.length > 0) store.set({ analyses: { ...store.get().analyses, [side]: fresh } })
  }
  const takeTokens = (tokens: Token[]) => {
    const old = store.get().analyses[side]
    const isSame = old?.tokens.length === tokens.length && old.tokens.every(({ id }, i) => id === tokens[i]!.id)
    take(isSame ? { tokens: old.tokens, earlier: old.positions } : { tokens })
    if (store.get().selected?.side === side) keepSelectionInside()
  }
  try {
    await streamDistribution(
      request,
      {
        head: (head) => take({ head }),
        tokens: takeTokens,
        positions: (positions) => take({ positions: [...fresh.positions, ...positions] }),
        summary: (summary) => take({ summary }),
        timing: (timing) => take({ timing }),
      },
      signal,
    )
    take({ state: 'done', earlier: [] })
  } catch (error) {
    take({ state: 'failed', earlier: [] })
    throw error
  }
}

const isDone = (side: Side, request: DistributionRequest): boolean => {
  const analysis = store.get().analyses[side]
  return analysis?.state === 'done' && JSON.stringify(analysis.request) === JSON.stringify(request)
}

/** Computes what is not there yet; earlier work under way is given up. */
export async function run(): Promise<void> {
  cancel()
  const own = new AbortController()
  aborter = own
  store.set({ problem: null, running: true, said: 'Computing.' })
  const work = SIDES.flatMap((side) => {
    const source = sourceOf(side)
    if (!source || (source.text === '' && !source.ids)) {
      store.set({ analyses: { ...store.get().analyses, [side]: null } })
      return []
    }
    const request = requestFor(source)
    return isDone(side, request) ? [] : [analyse(side, request, own.signal)]
  })
  for (const outcome of await Promise.allSettled(work)) if (outcome.status === 'rejected') show(outcome.reason)
  if (aborter !== own) return
  aborter = null
  keepSelectionInside()
  store.set({ running: false, said: store.get().problem ? '' : 'Done.' })
  writeAddressNow()
  scheduleLogits()
}

export function cancel(): void {
  if (!aborter) return
  aborter.abort()
  aborter = null
  for (const side of SIDES)
    if (store.get().analyses[side]?.state === 'running') setAnalysis(side, { state: 'cancelled', earlier: [] })
  store.set({ running: false, said: 'Cancelled.' })
}

// ------------------------------------------------------------------------------------------- choosing a position

function keepSelectionInside(): void {
  const { selected, analyses } = store.get()
  if (!selected) return
  const analysis = analyses[selected.side]
  const cells = analysis ? cellCount(analysis) : 0
  if (selected.cell >= cells) store.set({ selected: cells > 1 ? { ...selected, cell: cells - 1 } : null })
}

export function select(cell: Cell | null): void {
  store.set({ selected: cell, hovered: null })
  writeAddress()
  scheduleLogits()
}

export const hover = (cell: Cell | null): void => {
  const { hovered } = store.get()
  if (hovered?.side !== cell?.side || hovered?.cell !== cell?.cell) store.set({ hovered: cell })
}

/** The ids that the distribution of a cell follows. */
export const idsBefore = (analysis: Analysis, cell: number): number[] =>
  analysis.tokens.slice(0, cell).map((token) => token.id)

export const logitsKey = (analysis: Analysis, cell: number): string => idsBefore(analysis, cell).join('.')

let logitsTimer = 0
let logitsAborter = new AbortController()

/** Cells whose whole distributions are wanted: the chosen one and, beside a second text, the one that stands for it. */
let wantedCells: () => { analysis: Analysis; cell: number }[] = () => []
export const onLogitsWanted = (cells: typeof wantedCells): void => void (wantedCells = cells)

export function scheduleLogits(): void {
  clearTimeout(logitsTimer)
  logitsAborter.abort()
  const missing = wantedCells().filter(
    ({ analysis, cell }) => cell > 0 && !store.get().logits.has(logitsKey(analysis, cell)),
  )
  const { logitsProblem, problem } = store.get()
  if (logitsProblem) store.set({ logitsProblem: null, problem: problem === logitsProblem ? null : problem })
  if (missing.length === 0 || store.get().running) return
  const own = new AbortController()
  logitsAborter = own
  logitsTimer = window.setTimeout(() => {
    for (const { analysis, cell } of missing)
      fetchOne(logitsKey(analysis, cell), idsBefore(analysis, cell), own.signal).catch((error: unknown) => {
        show(error)
        if (!own.signal.aborted) store.set({ logitsProblem: store.get().problem })
      })
  }, REST_MS)
}

async function fetchOne(key: string, ids: number[], signal: AbortSignal): Promise<void> {
  const distribution = new Distribution(await fetchLogits(ids, signal))
  const kept = [...store.get().logits.entries()].slice(1 - KEPT_LOGITS)
  store.set({ logits: new Map([...kept, [key, distribution]]) })
}

// ------------------------------------------------------------------------------------------- alternatives, pins

/** Opens a second text, or changes it: the same tokens with another one in this cell; at the end one more. */
export async function tryAlternative(at: Cell, replacement: number[]): Promise<void> {
  const { analyses, model } = store.get()
  const analysis = analyses[at.side]
  if (!analysis) return
  const old = analysis.tokens.map((token) => token.id)
  const ids = [...old.slice(0, at.cell), ...replacement, ...old.slice(at.cell + 1)]
  try {
    const { text } = await detokenize(model?.bos_id === ids[0] ? ids.slice(1) : ids)
    store.set({ b: { text, ids }, selected: { side: 'b', cell: at.cell } })
    await run()
  } catch (error) {
    show(error)
  }
}

/** The text as the next thing to try: its tokens, as the model cuts it inside a text. */
export async function tryText(at: Cell, text: string): Promise<void> {
  try {
    await tryAlternative(
      at,
      (await tokenize(text, store.get().special)).map((token) => token.id),
    )
  } catch (error) {
    show(error)
  }
}

export async function addPin(text: string): Promise<void> {
  try {
    const tokens = await tokenize(text, true)
    const { pins, pinTokens } = store.get()
    const fresh = tokens.filter(
      (token, i) => !pins.includes(token.id) && tokens.findIndex(({ id }) => id === token.id) === i,
    )
    store.set({
      pins: [...pins, ...fresh.map((token) => token.id)],
      pinTokens: [...pinTokens, ...fresh],
      said: `${fresh.length} pinned.`,
    })
    if (fresh.length > 0 && store.get().analyses.a) await run()
  } catch (error) {
    show(error)
  }
}

export function pinToken(token: Token): void {
  const { pins, pinTokens } = store.get()
  if (pins.includes(token.id)) return
  store.set({ pins: [...pins, token.id], pinTokens: [...pinTokens, token] })
  void run()
}

/** The values of a pin that is gone stay in the analyses; nothing is computed again for it. */
export function removePin(id: number): void {
  const { pins, pinTokens, metric } = store.get()
  store.set({ pins: pins.filter((pin) => pin !== id), pinTokens: pinTokens.filter((token) => token.id !== id) })
  if (metric === `pin:${id}`) store.set({ metric: 'surprisal' })
  for (const side of SIDES) {
    const analysis = store.get().analyses[side]
    if (analysis) setAnalysis(side, { request: withPins(analysis.request) })
  }
  writeAddress()
}

/** Texts of pins that came by a link. */
async function readPins(ids: number[]): Promise<void> {
  const replies = await Promise.all(ids.map(async (id) => ({ id, ...(await detokenize([id])) })))
  store.set({ pinTokens: replies })
}

// --------------------------------------------------------------------------------------------------- the address

const linkOf = (state: State): string => writeLink(state, state.model?.n_vocab ?? null)
export const linkNow = (): string => `${location.origin}${location.pathname}#${linkOf(store.get())}`

let addressTimer = 0

function writeAddressNow(): void {
  clearTimeout(addressTimer)
  if (store.get().a.text !== '' || store.get().a.ids) history.replaceState(null, '', `#${linkOf(store.get())}`)
}

/** After a rest, for what changes many times a second. */
export function writeAddress(): void {
  clearTimeout(addressTimer)
  addressTimer = window.setTimeout(writeAddressNow, ADDRESS_REST_MS)
}

export async function restore(fragment: string): Promise<void> {
  const { model } = store.get()
  const link = readLink(fragment)
  if (!link) return
  const isForeign = link.nVocab !== null && model !== null && link.nVocab !== model.n_vocab
  const view = isForeign ? withoutIds(link.view) : link.view
  store.set({ ...view, pinTokens: [], hovered: null })
  await Promise.all([view.pins.length > 0 ? readPins(view.pins).catch(show) : null, run()])
  if (isForeign && !store.get().problem)
    show(new Problem('the link is of a model with another vocabulary; its pinned tokens and token ids were left out'))
}

export async function start(): Promise<void> {
  window.addEventListener('hashchange', () => void restore(location.hash))
  try {
    store.set({ model: await fetchModel() })
    await restore(location.hash)
  } catch (error) {
    show(error)
  }
}
