import assert from 'node:assert/strict'
import test from 'node:test'
import { toCsv, toCurl, toJson } from '../src/export'
import { defaultView, readLink, withoutIds, writeLink, type View } from '../src/link'
import { leadingBreaks, spokenText, trailingBreaks, visiblePieces } from '../src/token_text'
import { formatNumber, formatPercent, inUnit } from '../src/units'
import type { Analysis } from '../src/types'

const bytes = (text: string) => [...new TextEncoder().encode(text)]
const shown = (given: number[]) => visiblePieces(given).map(({ kind, text }) => `${kind}:${text}`)

test('spaces, breaks and what cannot be seen get a sign', () => {
  assert.deepEqual(shown(bytes(' Paris')), ['space:·', 'text:Paris'])
  assert.deepEqual(shown(bytes('\n\t\r')), ['space:⏎', 'space:⇥', 'space:␍'])
  assert.deepEqual(shown(bytes('a\u200b\u00a0\ufeff')), ['text:a', 'code:U+200B', 'code:U+00A0', 'code:U+FEFF'])
  assert.deepEqual(shown(bytes('\u0301')), ['text:◌\u0301'])
  assert.deepEqual(shown(bytes('naïve 🦜')), ['text:naïve', 'space:·', 'text:🦜'])
  assert.deepEqual(shown([]), [])
})

test('bytes that are no whole character stand as hex', () => {
  assert.deepEqual(shown([0xe4, 0xb8]), ['byte:E4', 'byte:B8'])
  assert.deepEqual(shown([0x20, 0xe4, 0xb8, 0x96, 0xff, 0x41]), ['space:·', 'text:世', 'byte:FF', 'text:A'])
  assert.deepEqual(shown([0xc0, 0x80, 0xed, 0xa0, 0x80]), ['byte:C0', 'byte:80', 'byte:ED', 'byte:A0', 'byte:80'])
})

test('breaks at the end, and words for screen readers', () => {
  assert.equal(trailingBreaks(bytes('\n\n')), 2)
  assert.equal(trailingBreaks(bytes('\na')), 0)
  assert.deepEqual(
    [' ', '\n   ', '\r\n\n\t', '\n', ' \n', ';\n  ', 'a'].map((text) => leadingBreaks(bytes(text))),
    [0, 1, 2, 0, 0, 0, 0],
  )
  assert.equal(spokenText(bytes(' Paris\n')), 'space Parisline break')
  assert.equal(spokenText([0xe4]), 'byte E4')
})

test('numbers', () => {
  assert.deepEqual([0.0421, 2.5549, 12.34, 123.4, 999.4, 999.6, -1234567, -0.0001, NaN, Infinity].map(formatNumber), [
    '0.042',
    '2.55',
    '12.3',
    '123',
    '999',
    '1,000',
    '−1,234,567',
    '0.000',
    '–',
    '∞',
  ])
  assert.deepEqual([1, 0.773, 0.0645, 0.0001234, 0.00001234, 1.5e-9, 0].map(formatPercent), [
    '100.0 %',
    '77.3 %',
    '6.45 %',
    '0.012 %',
    '0.0012 %',
    '1.5·10⁻⁷ %',
    '0 %',
  ])
  assert.equal(inUnit(Math.LN2, 'bits'), 1)
  assert.equal(inUnit(0.5, 'nats'), 0.5)
})

test('a link gives back the view, whatever the text holds', () => {
  const view: View = {
    a: { text: 'a&b=c #%\n\t 世界 🦜 +', ids: null },
    b: { text: '', ids: [1, 2, 3] },
    special: true,
    pins: [7042, 260],
    metric: 'pin:260',
    difference: false,
    unit: 'nats',
    numbers: true,
    temperature: 0.37,
    topN: 50,
    selected: { side: 'b', cell: 12 },
  }
  assert.deepEqual(readLink(`#${writeLink(view, 49152)}`), { view, nVocab: 49152 })
  const plain = { ...defaultView, a: { text: 'x', ids: null } }
  assert.deepEqual(readLink(writeLink(plain, 49152)), { view: plain, nVocab: null })
})

test('of a link to another vocabulary the texts remain', () => {
  const view = { ...defaultView, a: { text: 'x', ids: [1] }, b: { text: 'y', ids: [2] }, pins: [3] }
  const left = { ...defaultView, a: { text: 'x', ids: null }, b: { text: 'y', ids: null } }
  assert.deepEqual(withoutIds({ ...view, metric: 'pin:3' }), left)
  assert.deepEqual(withoutIds({ ...view, metric: 'rank' }), { ...left, metric: 'rank' })
})

test('a link of nonsense is the default view, one without a text is none', () => {
  const link = readLink('a=x&T=-4&top=7&by=pin:2&unit=bels&at=q9&pins=1.x.-2.3&a-ids=&vocabulary=many')
  assert.deepEqual(link, { view: { ...defaultView, a: { text: 'x', ids: null }, pins: [1, 3] }, nVocab: null })
  assert.equal(readLink('#b=x'), null)
  assert.equal(readLink(''), null)
})

const analysis: Analysis = {
  request: { prompt: 'a "b",\n' },
  head: { id: 'x' } as Analysis['head'],
  tokens: [
    { id: 1, text: 'a', bytes: [97] },
    { id: 2, text: ' "b",\n', bytes: bytes(' "b",\n') },
  ],
  positions: [
    {
      position: 0,
      token_id: 1,
      logsumexp: [3],
      entropy: [2],
      varentropy: [1],
      next: { id: 2, text: ' "b",\n', rank: 4, logprob: [-5.5] },
      top: [{ id: 9, text: 'z', logprob: [-0.1] }],
      token_ids: [{ id: 8, text: 'y', logprob: [null] }],
    },
    { position: 1, token_id: 2, logsumexp: [3], entropy: [2], varentropy: [1], next: null, top: [], token_ids: [] },
  ],
  summary: [],
  timing: { queue: 1, compute: 2 },
  earlier: [],
  state: 'done',
}

test('CSV quotes what needs it and leaves empty what is not there', () => {
  const lines = toCsv([{ name: 'a', analysis }], [{ id: 8, text: 'y', bytes: [121] }]).split('\r\n')
  assert.equal(lines[1], 'a,0,1,a,61,,,,,,,,,')
  assert.equal(lines[2], 'a,1,2," ""b"",\n",202262222c0a,5.5,4,2,1,3,9,z,-0.1,')
  assert.equal(lines.length, 4)
})

test('JSON has the shape of a reply', () => {
  const reply = JSON.parse(toJson(analysis)) as { results: { index: number; positions: unknown[] }[] }
  assert.deepEqual(Object.keys(reply), ['id', 'results', 'timing_ms'])
  assert.deepEqual(reply.results[0]!.positions, analysis.positions)
})

test('a command line survives quotes', () => {
  const line = toCurl('http://h:1', { prompt: `it's "$HOME"`, top_n: 3 }, true)
  assert.ok(line.includes(`'{"prompt":"it'\\''s \\"$HOME\\"","top_n":3}'`), line)
  assert.ok(line.includes('Bearer $LOGITD_KEY'))
})
