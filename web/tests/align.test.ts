import assert from 'node:assert/strict'
import test from 'node:test'
import { align, counterparts } from '../src/align'
import { randoms } from './helpers'

/** Length of a longest common subsequence, by the textbook's table. */
function longest(a: number[], b: number[]): number {
  let row = new Array<number>(b.length + 1).fill(0)
  for (const x of a) {
    const next = [0]
    for (let j = 0; j < b.length; j++) next.push(x === b[j] ? row[j]! + 1 : Math.max(row[j + 1]!, next[j]!))
    row = next
  }
  return row.at(-1)!
}

function check(a: number[], b: number[]): number {
  const segments = align(a, b)
  let [i, j, n] = [0, 0, 0]
  segments.forEach(({ same, a: [aFrom, aTo], b: [bFrom, bTo] }, k) => {
    assert.deepEqual([aFrom, bFrom], [i, j], 'no gap')
    assert.ok(aTo > aFrom || bTo > bFrom, 'nothing empty')
    if (k > 0) assert.notEqual(same, segments[k - 1]!.same)
    if (same) {
      assert.deepEqual(a.slice(aFrom, aTo), b.slice(bFrom, bTo))
      n += aTo - aFrom
    }
    ;[i, j] = [aTo, bTo]
  })
  assert.deepEqual([i, j], [a.length, b.length])
  return n
}

test('a retraction in the middle', () => {
  assert.deepEqual(align([1, 2, 3, 9, 4, 5], [1, 2, 3, 7, 8, 4, 5]), [
    { same: true, a: [0, 3], b: [0, 3] },
    { same: false, a: [3, 4], b: [3, 5] },
    { same: true, a: [4, 6], b: [5, 7] },
  ])
})

test('equal, empty, and wholly different texts', () => {
  assert.deepEqual(align([1, 2], [1, 2]), [{ same: true, a: [0, 2], b: [0, 2] }])
  assert.deepEqual(align([], []), [])
  assert.deepEqual(align([], [1]), [{ same: false, a: [0, 0], b: [0, 1] }])
  assert.deepEqual(align([1, 2], [3]), [{ same: false, a: [0, 2], b: [0, 1] }])
  assert.deepEqual(
    align([1, 2, 3], [2]).map(({ same }) => same),
    [false, true, false],
  )
})

test('as long as can be, on random texts of few and of many words', () => {
  const random = randoms(2)
  for (let round = 0; round < 400; round++) {
    const words = round % 2 ? 3 : 12
    const text = () => Array.from({ length: Math.floor(random() * 24) }, () => Math.floor(random() * words))
    const [a, b] = [text(), text()]
    assert.equal(check(a, b), longest(a, b), JSON.stringify([a, b]))
  }
})

test('two long texts with nothing in common end soon', () => {
  const a = Array.from({ length: 8000 }, (_, i) => i)
  const b = a.map((id) => id + 10_000)
  assert.equal(check(a, b), 0)
})

test('counterparts go both ways', () => {
  const [ofA, ofB] = counterparts(align([1, 9, 2], [1, 2, 3]), 3, 3)
  assert.deepEqual([...ofA], [0, -1, 1])
  assert.deepEqual([...ofB], [0, 2, -1])
})
