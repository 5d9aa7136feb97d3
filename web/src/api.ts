// api.ts: talks to the server that the page came from. Every failure becomes a Problem with a sentence for people. Where
// the server wants a key, `askForKey` is called and the request is sent again; the key lives in sessionStorage, which
// ends with the tab.
import { readLines } from './ndjson'
import { readSafetensors } from './safetensors'
import type { DistributionRequest, Head, Position, Summary, Token } from './types'

export class Problem extends Error {
  /** `param`: the request field at fault, or ''. `status`: of HTTP, 0 where there was no answer. */
  constructor(
    message: string,
    readonly status = 0,
    readonly param = '',
  ) {
    super(message)
  }
}

export interface ModelInfo {
  name: string
  architecture: string
  n_vocab: number
  n_ctx: number
  bos_id: number | null
  backend: string
  precision: string
}

const KEY = 'logitd-key'
/** Shows the key's dialog; resolves with what was typed, or null. `refused`: a key was sent and is not known. */
export let askForKey: (refused: boolean) => Promise<string | null> = () => Promise.resolve(null)
export const onKeyNeeded = (ask: typeof askForKey): void => void (askForKey = ask)
export const hasKey = (): boolean => sessionStorage.getItem(KEY) !== null
let asking: Promise<string | null> | null = null // one dialog for all requests that wait

const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === 'AbortError'

async function problemOf(response: Response): Promise<Problem> {
  const text = await response.text().catch(() => '')
  let message = `the server answered with status ${response.status}`
  let param = ''
  try {
    const { error } = JSON.parse(text) as { error: { message: string; param: string | null } }
    message = error.message
    param = error.param ?? ''
  } catch {
    if (text) message += ` and no JSON: ${text.slice(0, 200)}`
  }
  if (response.status === 429 || response.status === 503) message += ' (it is busy; try again in a moment)'
  return new Problem(message, response.status, param)
}

async function send(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {}
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  const key = sessionStorage.getItem(KEY)
  if (key) headers.Authorization = `Bearer ${key}`
  const init: RequestInit = { method: body === undefined ? 'GET' : 'POST', headers, signal: signal ?? null }
  if (body !== undefined) init.body = JSON.stringify(body)
  try {
    return await fetch(path, init)
  } catch (error) {
    if (isAbort(error)) throw error
    throw new Problem('the server does not answer; is it still running?')
  }
}

/** The reply of a request that succeeded. Asks for a key as often as needed. */
async function request(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  for (;;) {
    const sent = sessionStorage.getItem(KEY)
    const response = await send(path, body, signal)
    if (response.ok) return response
    const problem = await problemOf(response)
    if (response.status !== 401) throw problem
    if (sent !== sessionStorage.getItem(KEY)) continue // typed meanwhile for another request
    asking ??= askForKey(sent !== null).finally(() => (asking = null))
    const key = await asking
    if (key === null) throw problem
    sessionStorage.setItem(KEY, key)
  }
}

/** A reply that ends early has no sentence of its own. */
async function wholeBody<T>(read: Promise<T>): Promise<T> {
  try {
    return await read
  } catch (error) {
    if (isAbort(error) || error instanceof Problem) throw error
    throw new Problem('the connection broke off before the reply was whole')
  }
}

export const fetchModel = async (): Promise<ModelInfo> => (await request('/model')).json() as Promise<ModelInfo>

export async function tokenize(text: string, special: boolean): Promise<Token[]> {
  const reply = await request('/tokenize', { text, special, add_bos: false })
  return ((await reply.json()) as { tokens: Token[] }).tokens
}

export async function detokenize(ids: number[]): Promise<{ text: string; bytes: number[] }> {
  return (await request('/detokenize', { ids })).json() as Promise<{ text: string; bytes: number[] }>
}

export interface Sink {
  head(head: Head): void
  tokens(tokens: Token[]): void
  positions(positions: Position[]): void
  summary(summary: Summary[]): void
  timing(timing: unknown): void
}

type Line = { index?: number } & Partial<Head> &
  Partial<Position> & {
    tokens?: Token[]
    summary?: Summary[]
    timing_ms?: unknown
    error?: { message: string; param: string | null }
  }

function takeLine({ index: _, ...line }: Line, sink: Sink, positions: Position[]): void {
  if (line.error) throw new Problem(line.error.message, 200, line.error.param ?? '')
  if (line.position !== undefined) positions.push(line as Position)
  else if (line.tokens) sink.tokens(line.tokens)
  else if (line.summary) sink.summary(line.summary)
  else if (line.timing_ms) sink.timing(line.timing_ms)
  else if (line.usage) sink.head(line as Head)
}

/** One prompt's distributions, handed over as they arrive. */
export async function streamDistribution(body: DistributionRequest, sink: Sink, signal: AbortSignal): Promise<void> {
  const response = await request('/distribution', { ...body, format: 'ndjson' }, signal)
  let ended = false
  const read = async () => {
    for await (const lines of readLines(response.body!)) {
      const positions: Position[] = []
      for (const line of lines as Line[]) {
        takeLine(line, sink, positions)
        ended ||= line.timing_ms !== undefined
      }
      if (positions.length > 0) sink.positions(positions)
    }
  }
  await wholeBody(read())
  if (!ended) throw new Problem('the connection broke off before the reply was whole')
}

/** The logits, [n_vocab], of what follows these tokens. */
export async function fetchLogits(ids: number[], signal: AbortSignal): Promise<Float32Array> {
  const body: DistributionRequest = {
    prompt: ids,
    positions: [ids.length - 1],
    top_n: 'full',
    values: 'logit',
    format: 'safetensors',
  }
  const response = await request('/distribution', body, signal)
  const logits = readSafetensors(await wholeBody(response.arrayBuffer())).tensors.get('prompt.0.logit')
  if (!(logits?.values instanceof Float32Array)) throw new Problem('the reply holds no logits')
  return logits.values
}

/** A reply as a file. */
export async function fetchFile(body: DistributionRequest, signal?: AbortSignal): Promise<Blob> {
  return wholeBody((await request('/distribution', body, signal)).blob())
}

/** Token i is bytes[offsets[i] … offsets[i + 1]). */
export async function fetchVocab(): Promise<{ bytes: Uint8Array; offsets: BigInt64Array }> {
  const { tensors } = readSafetensors(await wholeBody((await request('/vocab?format=safetensors')).arrayBuffer()))
  const [bytes, offsets] = [tensors.get('bytes')?.values, tensors.get('bytes_offsets')?.values]
  if (!(bytes instanceof Uint8Array && offsets instanceof BigInt64Array))
    throw new Problem('the reply holds no vocabulary')
  return { bytes, offsets }
}
