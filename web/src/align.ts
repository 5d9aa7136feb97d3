// align.ts: which tokens of two texts stand for each other: a longest common subsequence of the ids (Myers, "An O(ND)
// difference algorithm", 1986), after the common start and end were taken off.

/** A stretch of both texts: `same` ones have equal ids and lengths, others may be empty on one side. */
export interface Segment {
  same: boolean
  a: [number, number] // indices, the end excluded
  b: [number, number]
}

const MAX_EDITS = 4000 // beyond it the middle counts as wholly different, so that time and memory stay small

/** Pairs of equal elements in order, of a longest common subsequence; null: more edits than MAX_EDITS. */
function commonPairs(a: readonly number[], b: readonly number[]): [number, number][] | null {
  const most = Math.min(a.length + b.length, MAX_EDITS)
  const offset = most + 1
  let reach = new Int32Array(2 * most + 3)
  const history: Int32Array[] = []
  for (let edits = 0; edits <= most; edits++) {
    history.push(reach.slice(offset - edits - 1, offset + edits + 2))
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && reach[offset + k - 1]! < reach[offset + k + 1]!)
      let x = down ? reach[offset + k + 1]! : reach[offset + k - 1]! + 1
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++
      reach[offset + k] = x
      if (x >= a.length && x - k >= b.length) return walkBack(a.length, b.length, history)
    }
  }
  return null
}

/** `history[d]` holds how far each diagonal -d-1 … d+1 had come before edit d. */
function walkBack(aLength: number, bLength: number, history: Int32Array[]): [number, number][] {
  const pairs: [number, number][] = []
  let x = aLength
  let y = bLength
  for (let edits = history.length - 1; edits >= 0; edits--) {
    const before = history[edits]!
    const at = (k: number) => before[k + edits + 1]!
    const k = x - y
    const down = k === -edits || (k !== edits && at(k - 1) < at(k + 1))
    const fromK = down ? k + 1 : k - 1
    const fromX = edits === 0 ? 0 : at(fromK)
    const fromY = edits === 0 ? 0 : fromX - fromK
    while (x > fromX && y > fromY) pairs.push([--x, --y])
    x = fromX
    y = fromY
  }
  return pairs.reverse()
}

export function align(a: readonly number[], b: readonly number[]): Segment[] {
  let start = 0
  while (start < a.length && start < b.length && a[start] === b[start]) start++
  let end = 0
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++
  const middle = commonPairs(a.slice(start, a.length - end), b.slice(start, b.length - end)) ?? []
  const pairs: [number, number][] = []
  for (let i = 0; i < start; i++) pairs.push([i, i])
  for (const [i, j] of middle) pairs.push([start + i, start + j])
  for (let i = end; i > 0; i--) pairs.push([a.length - i, b.length - i])

  const segments: Segment[] = []
  let [i, j] = [0, 0]
  for (const [x, y] of [...pairs, [a.length, b.length] as [number, number]]) {
    if (x > i || y > j) segments.push({ same: false, a: [i, x], b: [j, y] })
    if (x < a.length || y < b.length) {
      const last = segments.at(-1)
      if (last?.same) {
        last.a[1]++
        last.b[1]++
      } else {
        segments.push({ same: true, a: [x, x + 1], b: [y, y + 1] })
      }
    }
    ;[i, j] = [x + 1, y + 1]
  }
  return segments
}

/** For each index of `a`, the index of `b` that stands for it, or -1; and the other way round. */
export function counterparts(segments: Segment[], aLength: number, bLength: number): [Int32Array, Int32Array] {
  const ofA = new Int32Array(aLength).fill(-1)
  const ofB = new Int32Array(bLength).fill(-1)
  for (const { same, a, b } of segments) {
    for (let i = 0; same && i < a[1] - a[0]; i++) {
      ofA[a[0] + i] = b[0] + i
      ofB[b[0] + i] = a[0] + i
    }
  }
  return [ofA, ofB]
}
