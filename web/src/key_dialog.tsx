// key_dialog.tsx: asks for the server's API key when it wants one.
import { useEffect, useRef, useState } from 'preact/hooks'
import { onKeyNeeded } from './api'

export function KeyDialog() {
  const dialog = useRef<HTMLDialogElement>(null)
  const answer = useRef<(key: string | null) => void>(() => undefined)
  const [refused, setRefused] = useState(false)
  const [key, setKey] = useState('')

  useEffect(() => {
    onKeyNeeded((wasRefused) => {
      setRefused(wasRefused)
      dialog.current!.showModal()
      return new Promise((resolve) => (answer.current = resolve))
    })
  }, [])

  const close = (given: string | null) => {
    setKey('')
    dialog.current!.close()
    answer.current(given)
  }

  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={() => close(null)}>
      <form
        method="dialog"
        onSubmit={(event) => {
          event.preventDefault()
          if (key !== '') close(key)
        }}
      >
        <h2 id="key-title">This server wants a key</h2>
        <p role={refused ? 'alert' : undefined}>
          {refused
            ? 'The key is not one of this server’s. Ask whoever runs it, and try again.'
            : 'Whoever runs the server has one for you. It stays in this tab and goes to this server alone.'}
        </p>
        <label>
          Key
          <input
            type="password"
            autocomplete="off"
            value={key}
            onInput={(event) => setKey(event.currentTarget.value.trim())}
          />
        </label>
        <div class="row end">
          <button type="button" onClick={() => close(null)}>
            Not now
          </button>
          <button type="submit" class="primary" disabled={key === ''}>
            Use this key
          </button>
        </div>
      </form>
    </dialog>
  )
}
