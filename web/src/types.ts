// types.ts: what POST /distribution answers, as far as the page uses it (the contract is /openapi.json), and what the
// page makes of it. Logarithms are natural (nats) everywhere; units.ts turns them into bits for people.

export interface Token {
  id: number
  text: string // valid UTF-8, with U+FFFD where the token is a fragment
  bytes: number[] // exact
}

export interface Entry {
  id: number
  text: string
  logprob: (number | null)[] // [n_temperatures]
}

export interface Position {
  position: number
  token_id: number
  logsumexp: number[] // [n_temperatures], of logits / T
  entropy: number[]
  varentropy: number[]
  next: { id: number; text: string; rank: number; logprob: (number | null)[] } | null
  top: Entry[]
  token_ids: Entry[] // of the pinned tokens
}

export interface Summary {
  temperature: number
  cross_entropy: number | null
  perplexity: number | null
  bits_per_byte: number | null
  mean_entropy: number | null
  n: number
}

export interface Head {
  id: string
  model: { name: string; n_vocab: number; sha256: string }
  numerics: { backend: string; precision: string; kernel: string }
  temperatures: number[]
  usage: { prompt_tokens: number; positions: number }
}

export interface DistributionRequest {
  prompt: string | number[]
  special?: boolean
  positions?: 'all' | 'last' | number[]
  temperatures?: number[]
  top_n?: number | 'full'
  values?: 'logprob' | 'prob' | 'logit'
  token_ids?: number[]
  format?: 'json' | 'ndjson' | 'safetensors'
}

/** What a streamed reply gave so far. */
export interface Analysis {
  request: DistributionRequest
  head: Head | null
  tokens: Token[]
  positions: Position[] // [i] is position i; the first n_done are there
  summary: Summary[]
  timing: unknown
  earlier: Position[] // of a request before for the same tokens: shown until positions take their places
  state: 'running' | 'done' | 'cancelled' | 'failed'
}

/** A text of the page: as typed, or as token ids where an alternative was put in (its text may be cut otherwise). */
export interface Source {
  text: string
  ids: number[] | null
}

export type Metric = 'surprisal' | 'rank' | 'entropy' | 'top1' | `pin:${number}`
export type Unit = 'bits' | 'nats'
