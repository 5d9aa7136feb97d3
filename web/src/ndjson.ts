// ndjson.ts: lines of JSON out of a stream of bytes that is cut anywhere, also within a character.

/** Yields the objects of one chunk after another, as arrays: all whole lines that a chunk completed. */
export async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<unknown[]> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const reader = stream.getReader()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      const lines = (rest + (done ? decoder.decode() : decoder.decode(value, { stream: true }))).split('\n')
      rest = done ? '' : (lines.pop() ?? '')
      const objects = lines.filter((line) => line.trim() !== '').map((line) => JSON.parse(line) as unknown)
      if (objects.length > 0) yield objects
      if (done) return
    }
  } finally {
    await reader.cancel().catch(() => undefined) // of a loop that was left early; after the end it does nothing
  }
}
