import assert from 'node:assert/strict'
import test from 'node:test'
import { Distribution } from '../src/distribution'
import { randoms } from './helpers'

const close = (actual: number, expected: number, tolerance = 1e-12) =>
  assert.ok(Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${actual} is not ${expected}`)

test('two tokens: the logistic function at any temperature', () => {
  const distribution = new Distribution(Float32Array.of(2, 1))
  for (const temperature of [0.01, 0.5, 1, 3]) {
    const x = -1 / temperature
    const norm = Math.log1p(Math.exp(x))
    const [first, second] = distribution.logprobs([0, 1], temperature) as [number, number]
    close(first, -norm)
    close(second, x - norm)
    const p = Math.exp(second)
    const { entropy, varentropy, logsumexp } = distribution.stats(temperature)
    close(entropy, norm - p * x)
    close(varentropy, p * (1 - p) * x * x)
    close(logsumexp, 2 / temperature + norm)
  }
})

test('small temperatures lose no digits, where logit / T - logsumexp does', () => {
  const distribution = new Distribution(Float32Array.of(1000, 999.9375, -1000))
  const [first, second, third] = distribution.logprobs([0, 1, 2], 0.01) as [number, number, number]
  const norm = Math.log1p(Math.exp(-6.25))
  close(first, -norm, 1e-15)
  close(second, -6.25 - norm, 1e-15)
  close(third, -200000 - norm, 1e-15)
})

test('uniform: entropy is log n, no variance', () => {
  const { entropy, varentropy, logsumexp } = new Distribution(new Float32Array(49152).fill(-3)).stats(0.7)
  close(entropy, Math.log(49152))
  close(varentropy, 0, 1e-9)
  close(logsumexp, -3 / 0.7 + Math.log(49152))
})

test('probabilities sum to 1, -inf has none, ranks count strictly larger ones', () => {
  const random = randoms(1)
  const logits = Float32Array.from({ length: 5000 }, () => 20 * random() - 10)
  logits[17] = -Infinity
  logits[18] = logits[19]!
  const distribution = new Distribution(logits)
  for (const temperature of [0.01, 1, 3]) {
    const ids = [...logits.keys()]
    const sum = distribution.logprobs(ids, temperature).reduce((total, logprob) => total + Math.exp(logprob), 0)
    close(sum, 1, 1e-10)
    assert.ok(Number.isFinite(distribution.stats(temperature).varentropy))
  }
  assert.equal(distribution.logprobs([17], 1)[0], -Infinity)
  assert.equal(distribution.rank(17), 4999)
  assert.equal(distribution.rank(18), distribution.rank(19))
  const sorted = [...logits].sort((x, y) => y - x)
  assert.equal(distribution.rank(100), sorted.indexOf(logits[100]!))
})

test('no finite logit is an error', () => {
  assert.throws(() => new Distribution(Float32Array.of(-Infinity, NaN)), /no finite/)
})

test('divergence: by hand, zero to itself, at another temperature', () => {
  const one = new Distribution(Float32Array.of(Math.log(3), 0))
  const other = new Distribution(Float32Array.of(0, 0))
  close(one.klTo(other, 1), 0.75 * Math.log(0.75 / 0.5) + 0.25 * Math.log(0.25 / 0.5), 1e-7)
  close(other.klTo(one, 1), 0.5 * Math.log(0.5 / 0.75) + 0.5 * Math.log(0.5 / 0.25), 1e-7)
  assert.equal(one.klTo(one, 0.3), 0)
  assert.throws(() => one.klTo(new Distribution(Float32Array.of(1)), 1), /different vocabularies/)
})

test('the numbers of a temperature need one exponential a token, however many are asked', () => {
  const random = randoms(2)
  const make = () => new Distribution(Float32Array.from({ length: 1000 }, () => 8 * random()))
  const [one, other] = [make(), make()]
  const exp = Math.exp
  let calls = 0
  Math.exp = (x) => (calls++, exp(x))
  try {
    for (const temperature of [0.5, 2]) {
      one.stats(temperature)
      one.logprobs([1, 2, 3], temperature)
      other.logprobs([4], temperature)
      one.klTo(other, temperature)
      other.klTo(one, temperature)
    }
  } finally {
    Math.exp = exp
  }
  assert.equal(calls, 2 * 2 * 1000)
  close(one.stats(0.5).logsumexp, Math.log([...one.logits].reduce((sum, logit) => sum + exp(logit / 0.5), 0)))
  const p = one.logprobs([...one.logits.keys()], 0.5)
  const q = other.logprobs([...one.logits.keys()], 0.5)
  close(
    one.klTo(other, 0.5),
    p.reduce((sum, logprob, id) => sum + exp(logprob) * (logprob - q[id]!), 0),
    1e-10,
  )
})
