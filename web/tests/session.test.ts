import assert from 'node:assert/strict'
import test from 'node:test'
import { isChanged, store, type State } from '../src/session'
import type { Analysis } from '../src/types'

const shown = (a: State['a'], prompt: string | number[]): State => ({
  ...store.get(),
  a,
  analyses: { a: { request: { prompt } } as Analysis, b: null },
})

test('a text is changed once it is another than the one computed', () => {
  assert.equal(isChanged(shown({ text: 'one', ids: null }, 'one')), false)
  assert.equal(isChanged(shown({ text: 'other', ids: null }, 'one')), true)
  assert.equal(isChanged(shown({ text: 'one', ids: [1, 2] }, [1, 2])), false) // the same ids, chosen again
  assert.equal(isChanged(shown({ text: 'one', ids: [1, 3] }, [1, 2])), true)
  assert.equal(isChanged(shown({ text: 'one', ids: [1, 2] }, 'one')), true)
})
