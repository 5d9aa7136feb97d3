// distribution.ts: a whole distribution at any temperature, from one row of logits, in float64. As the server's own:
// logprob = x - log Σ eˣ with x = (logit - max) / T, since logit / T - logsumexp loses digits at small T.

export interface Stats {
  logsumexp: number // of logits / T
  entropy: number // nats
  varentropy: number // nats²
}

/** What all numbers at one temperature share, with x = (logit - max) / T. */
interface Scaled {
  temperature: number
  weights: Float64Array // [n_vocab] eˣ
  sum: number // Σ eˣ
  logNorm: number // log Σ eˣ
  stats: Stats
}

/** One row of logits, [n_vocab], in id order. The exponentials of the last temperature are kept: all that is asked at it
 * costs one pass over the vocabulary. */
export class Distribution {
  readonly logits: Float32Array
  readonly max: number
  private last: Scaled | null = null

  constructor(logits: Float32Array) {
    let max = -Infinity
    for (const logit of logits) if (logit > max) max = logit
    if (!Number.isFinite(max)) throw new Error('the logits hold no finite value')
    this.logits = logits
    this.max = max
  }

  private at(temperature: number): Scaled {
    if (this.last?.temperature === temperature) return this.last
    const weights = this.last?.weights ?? new Float64Array(this.logits.length)
    let sum = 0
    let sumX = 0
    let sumXX = 0
    for (let id = 0; id < weights.length; id++) {
      const x = (this.logits[id]! - this.max) / temperature
      const e = Math.exp(x)
      weights[id] = e
      if (e === 0) continue // also -inf, whose x·eˣ would be NaN
      sum += e
      sumX += x * e
      sumXX += x * x * e
    }
    const logNorm = Math.log(sum)
    const mean = sumX / sum
    const stats = {
      logsumexp: this.max / temperature + logNorm,
      entropy: logNorm - mean,
      varentropy: Math.max(0, sumXX / sum - mean * mean),
    }
    this.last = { temperature, weights, sum, logNorm, stats }
    return this.last
  }

  stats(temperature: number): Stats {
    return this.at(temperature).stats
  }

  /** Log-probabilities of these ids. */
  logprobs(ids: readonly number[], temperature: number): number[] {
    const { logNorm } = this.at(temperature)
    return ids.map((id) => ((this.logits[id] ?? NaN) - this.max) / temperature - logNorm)
  }

  /** Tokens with a strictly larger logit. */
  rank(id: number): number {
    const own = this.logits[id] ?? NaN
    let rank = 0
    for (const logit of this.logits) if (logit > own) rank++
    return rank
  }

  /** Kullback–Leibler divergence Σ p log(p / q) from this distribution to another one, nats. */
  klTo(other: Distribution, temperature: number): number {
    if (other.logits.length !== this.logits.length) throw new Error('distributions over different vocabularies')
    const own = this.at(temperature)
    const { logNorm } = other.at(temperature)
    let sum = 0
    for (let id = 0; id < own.weights.length; id++) {
      const weight = own.weights[id]!
      if (weight === 0) continue
      const difference = (this.logits[id]! - this.max - (other.logits[id]! - other.max)) / temperature
      sum += weight * (difference - own.logNorm + logNorm)
    }
    return Math.max(0, sum / own.sum)
  }
}
