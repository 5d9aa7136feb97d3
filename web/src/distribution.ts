// distribution.ts: a whole distribution at any temperature, from one row of logits, in float64. As the server's own:
// logprob = x - log Σ eˣ with x = (logit - max) / T, since logit / T - logsumexp loses digits at small T.

export interface Stats {
  logsumexp: number // of logits / T
  entropy: number // nats
  varentropy: number // nats²
}

/** One row of logits, [n_vocab], in id order. */
export class Distribution {
  readonly logits: Float32Array
  readonly max: number

  constructor(logits: Float32Array) {
    let max = -Infinity
    for (const logit of logits) if (logit > max) max = logit
    if (!Number.isFinite(max)) throw new Error('the logits hold no finite value')
    this.logits = logits
    this.max = max
  }

  /** log Σ e^((logit - max) / T) */
  private logNorm(temperature: number): number {
    let sum = 0
    for (const logit of this.logits) sum += Math.exp((logit - this.max) / temperature)
    return Math.log(sum)
  }

  stats(temperature: number): Stats {
    let sum = 0
    let sumX = 0
    let sumXX = 0
    for (const logit of this.logits) {
      const x = (logit - this.max) / temperature
      const e = Math.exp(x)
      if (e === 0) continue // also -inf, whose x·eˣ would be NaN
      sum += e
      sumX += x * e
      sumXX += x * x * e
    }
    const logNorm = Math.log(sum)
    const mean = sumX / sum
    return {
      logsumexp: this.max / temperature + logNorm,
      entropy: logNorm - mean,
      varentropy: Math.max(0, sumXX / sum - mean * mean),
    }
  }

  /** Log-probabilities of these ids. */
  logprobs(ids: readonly number[], temperature: number): number[] {
    const logNorm = this.logNorm(temperature)
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
    const ownNorm = this.logNorm(temperature)
    const otherNorm = other.logNorm(temperature)
    let sum = 0
    for (let id = 0; id < this.logits.length; id++) {
      const own = ((this.logits[id] ?? 0) - this.max) / temperature - ownNorm
      const p = Math.exp(own)
      if (p > 0) sum += p * (own - (((other.logits[id] ?? 0) - other.max) / temperature - otherNorm))
    }
    return Math.max(0, sum)
  }
}
