// safetensors.ts: reads the format of safetensors replies: 8 bytes with the header's length (little-endian), the header
// as JSON, the values. Only the types that the server sends. Refuses whatever does not add up.

export interface Tensor {
  dtype: string
  shape: number[]
  values: Values
}

export type Values = Float32Array | Int32Array | BigInt64Array | Uint8Array

export interface Safetensors {
  tensors: Map<string, Tensor>
  metadata: Record<string, string>
}

const itemBytes: Record<string, number> = { F32: 4, F16: 2, I32: 4, I64: 8, U8: 1 }

/** IEEE 754 half to number. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

function readValues(dtype: string, data: ArrayBuffer): Values {
  if (dtype === 'F32') return new Float32Array(data)
  if (dtype === 'I64') return new BigInt64Array(data)
  if (dtype === 'U8') return new Uint8Array(data)
  if (dtype === 'I32') return new Int32Array(data)
  return Float32Array.from(new Uint16Array(data), halfToNumber)
}

export function readSafetensors(buffer: ArrayBuffer): Safetensors {
  if (buffer.byteLength < 8) throw new Error('the safetensors reply is cut: it has no header')
  const headerBytes = Number(new DataView(buffer).getBigUint64(0, true))
  const start = 8 + headerBytes
  if (start > buffer.byteLength) throw new Error('the safetensors reply is cut in its header')
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, headerBytes))) as Record<string, never>
  const tensors = new Map<string, Tensor>()
  let metadata: Record<string, string> = {}
  for (const [name, entry] of Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(
    header,
  )) {
    if (name === '__metadata__') {
      metadata = entry as unknown as Record<string, string>
      continue
    }
    const [from, to] = entry.data_offsets
    const size = entry.shape.reduce((product, n) => product * n, itemBytes[entry.dtype] ?? NaN)
    if (to - from !== size || from < 0 || start + to > buffer.byteLength)
      throw new Error(`the safetensors reply is cut, or wrong, at ${name}`)
    const data = buffer.slice(start + from, start + to) // a copy, so that it is aligned
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, values: readValues(entry.dtype, data) })
  }
  return { tensors, metadata }
}
