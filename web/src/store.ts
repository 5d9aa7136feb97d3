// store.ts: one object of state, replaced piece by piece, and a hook that renders a component again when the part that it
// looks at has changed.
import { useEffect, useState } from 'preact/hooks'

export interface Store<T> {
  get(): T
  set(change: Partial<T>): void
  subscribe(listener: () => void): () => void
}

export function createStore<T extends object>(initial: T): Store<T> {
  let state = initial
  const listeners = new Set<() => void>()
  return {
    get: () => state,
    set(change) {
      state = { ...state, ...change }
      for (const listener of [...listeners]) listener()
    },
    subscribe(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}

/** `pick` must give the same (===) part as long as nothing changed. */
export function useStore<T extends object, P>(store: Store<T>, pick: (state: T) => P): P {
  const [, render] = useState(0)
  const part = pick(store.get())
  useEffect(() => {
    let seen = part
    const look = () => {
      const now = pick(store.get())
      if (now === seen) return
      seen = now
      render((n) => n + 1)
    }
    look()
    return store.subscribe(look)
  })
  return part
}
