import assert from 'node:assert/strict'
import test from 'node:test'
import { readLines } from '../src/ndjson'
import { halfToNumber, readSafetensors } from '../src/safetensors'
import { randoms } from './helpers'

function streamOf(bytes: Uint8Array, cuts: number[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      let from = 0
      for (const cut of [...cuts, bytes.length]) {
        controller.enqueue(bytes.subarray(from, cut))
        from = cut
      }
      controller.close()
    },
  })
}

async function all(stream: ReadableStream<Uint8Array>): Promise<unknown[]> {
  const found: unknown[] = []
  for await (const objects of readLines(stream)) found.push(...objects)
  return found
}

test('lines come whole wherever the bytes are cut, also within a character', async () => {
  const objects = [{ text: 'naïve 世界 🦜' }, { text: 'a\nb' }, { n: [1, null] }]
  const bytes = new TextEncoder().encode(objects.map((object) => JSON.stringify(object)).join('\n') + '\n')
  for (let cut = 0; cut <= bytes.length; cut++) assert.deepEqual(await all(streamOf(bytes, [cut])), objects)
  const random = randoms(3)
  for (let round = 0; round < 50; round++) {
    const cuts = Array.from({ length: 8 }, () => Math.floor(random() * bytes.length)).sort((x, y) => x - y)
    assert.deepEqual(await all(streamOf(bytes, cuts)), objects)
  }
})

test('a line is handed over before the next one is there', async () => {
  let controller!: ReadableStreamDefaultController<Uint8Array>
  const lines = readLines(new ReadableStream({ start: (own) => void (controller = own) }))
  controller.enqueue(new TextEncoder().encode('{"a":1}\n{"b"'))
  assert.deepEqual((await lines.next()).value, [{ a: 1 }])
  controller.enqueue(new TextEncoder().encode(':2}'))
  controller.close()
  assert.deepEqual((await lines.next()).value, [{ b: 2 }])
  assert.equal((await lines.next()).done, true)
})

test('a loop that is left cancels the stream', async () => {
  let cancelled = false
  const stream = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new TextEncoder().encode('{"a":1}\n')),
    cancel: () => void (cancelled = true),
  })
  for await (const _ of readLines(stream)) break
  assert.ok(cancelled)
})

function fileOf(header: object, data: ArrayBuffer): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(header))
  const file = new Uint8Array(8 + text.length + data.byteLength)
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true)
  file.set(text, 8)
  file.set(new Uint8Array(data), 8 + text.length)
  return file.buffer
}

test('tensors of every type, at any alignment, and the metadata', () => {
  const data = new ArrayBuffer(4 + 4 + 2 + 8 + 1)
  const view = new DataView(data)
  view.setFloat32(0, -1.5, true)
  view.setInt32(4, -7, true)
  view.setUint16(8, 0x3555, true)
  view.setBigInt64(10, 5n, true)
  view.setUint8(18, 255)
  const entry = (dtype: string, from: number, to: number) => ({ dtype, shape: [1], data_offsets: [from, to] })
  for (const pad of ['', 'x', 'xx', 'xxx']) {
    const { tensors, metadata } = readSafetensors(
      fileOf(
        {
          __metadata__: { pad },
          f: entry('F32', 0, 4),
          i: entry('I32', 4, 8),
          h: entry('F16', 8, 10),
          l: entry('I64', 10, 18),
          b: entry('U8', 18, 19),
        },
        data,
      ),
    )
    assert.deepEqual(
      [...tensors.values()].map(({ values }) => values[0]),
      [-1.5, -7, 0.333251953125, 5n, 255],
    )
    assert.equal(metadata.pad, pad)
  }
})

test('halves: one, the largest, the smallest, infinity, not a number', () => {
  assert.deepEqual([0x3c00, 0x7bff, 0x0001, 0xfc00, 0x8000].map(halfToNumber), [1, 65504, 2 ** -24, -Infinity, -0])
  assert.ok(Number.isNaN(halfToNumber(0x7e00)))
})

test('files that are cut or wrong are refused', () => {
  const entry = { dtype: 'F32', shape: [2], data_offsets: [0, 8] }
  const file = fileOf({ a: entry }, new ArrayBuffer(8))
  assert.throws(() => readSafetensors(file.slice(0, 7)), /no header/)
  assert.throws(() => readSafetensors(file.slice(0, 20)), /in its header/)
  assert.throws(() => readSafetensors(file.slice(0, -1)), /cut, or wrong, at a/)
  assert.throws(() => readSafetensors(fileOf({ a: { ...entry, shape: [3] } }, new ArrayBuffer(8))), /at a/)
  assert.throws(() => readSafetensors(fileOf({ a: { ...entry, dtype: 'C64' } }, new ArrayBuffer(8))), /at a/)
})
