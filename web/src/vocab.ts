// vocab.ts: every token's exact bytes, fetched once, when the first entry shows up whose text is a fragment.
import { fetchVocab } from './api'
import { createStore } from './store'

export const vocabStore = createStore<{ bytesOf: ((id: number) => number[]) | null }>({ bytesOf: null })
let asked = false

/** A token's bytes: from its text where that is whole, else from the vocabulary once it is here. */
export function bytesOf(id: number, text: string): number[] {
  const known = vocabStore.get().bytesOf
  if (known) return known(id)
  if (text.includes('\ufffd') && !asked) {
    asked = true
    void load()
  }
  return [...new TextEncoder().encode(text)]
}

async function load(): Promise<void> {
  try {
    const { bytes, offsets } = await fetchVocab()
    vocabStore.set({ bytesOf: (id) => [...bytes.subarray(Number(offsets[id]), Number(offsets[id + 1]))] })
  } catch {
    asked = false // fragments stand as U+FFFD until the next try
  }
}
