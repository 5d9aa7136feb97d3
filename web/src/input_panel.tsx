// input_panel.tsx: the texts, what to compute of them, and how far it is.
import { useState } from 'preact/hooks'
import { TOP_NS, type Side } from './link'
import { TokenText } from './pieces'
import { addPin, cancel, removePin, run, store, type State } from './session'
import { useStore } from './store'
import { formatCount } from './units'

const examples: { name: string; a: string; b?: string }[] = [
  {
    name: 'A fact',
    a: 'The capital of France is Paris, and the capital of Japan is Tokyo. The capital of Australia is Canberra.',
  },
  {
    name: 'Actually, I was wrong',
    a: 'Q: What is the capital of Australia?\nA: The capital of Australia is Sydney. It lies on the coast. So, once more: the capital of Australia is',
    b: 'Q: What is the capital of Australia?\nA: The capital of Australia is Sydney. Actually, I was wrong: it is Canberra. So, once more: the capital of Australia is',
  },
  {
    name: 'Code',
    a: 'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n',
  },
  { name: 'Many scripts', a: 'Hello, мир, 世界, שלום, नमस्ते — naïve café 🦜\ttab\u200b and a zero-width space.' },
]

const setText = (side: Side, text: string) => store.set({ [side]: { text, ids: null } })

function TextBox({ side, label }: { side: Side; label: string }) {
  const source = useStore(store, (state) => state[side])
  const wrong = useStore(store, (state) => state.problem?.param.startsWith('prompt') ?? false)
  if (!source) return null
  return (
    <label class="text-box">
      <span>
        {label}
        {source.ids && <small> · these very tokens; editing the text cuts it anew</small>}
      </span>
      <textarea
        id={`text-${side}`}
        rows={3}
        spellcheck={false}
        value={source.text}
        aria-invalid={wrong}
        placeholder="Paste a text, and see what the model expected at every token."
        onInput={(event) => setText(side, event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void run()
        }}
      />
    </label>
  )
}

const progressOf = ({ analyses }: State): string => {
  let [done, all] = [0, 0]
  for (const analysis of [analyses.a, analyses.b]) {
    if (analysis?.state !== 'running') continue
    done += analysis.positions.length
    all += analysis.head?.usage.positions ?? 0
  }
  return `${done} ${all}`
}

function Progress() {
  const [done, all] = useStore(store, progressOf).split(' ').map(Number) as [number, number]
  const running = useStore(store, (state) => state.running)
  if (!running) return null
  return (
    <div class="progress">
      <progress aria-label="Positions computed" max={all || 1} value={all ? done : undefined} />
      <span>{all ? `${formatCount(done)} of ${formatCount(all)} positions` : 'waiting for the server'}</span>
      <button type="button" id="cancel" onClick={cancel}>
        Cancel
      </button>
    </div>
  )
}

function Pins() {
  const pins = useStore(store, (state) => state.pinTokens)
  const [text, setPinText] = useState('')
  const add = (event: Event) => {
    event.preventDefault()
    if (text === '') return
    void addPin(text)
    setPinText('')
  }
  return (
    <form class="pins" onSubmit={add}>
      <label for="pin-text">Pinned tokens</label>
      {pins.map((token) => (
        <button key={token.id} type="button" class="chip" title={`id ${token.id}`} onClick={() => removePin(token.id)}>
          <TokenText token={token} />
          <span aria-hidden="true"> ×</span>
          <span class="hidden"> remove</span>
        </button>
      ))}
      <input
        id="pin-text"
        size={12}
        value={text}
        placeholder="␣Paris"
        title="A leading space counts"
        onInput={(event) => setPinText(event.currentTarget.value.replaceAll('␣', ' '))}
      />
      <button type="submit" disabled={text === ''}>
        Pin
      </button>
    </form>
  )
}

function loadExample({ a, b }: { a: string; b?: string }) {
  store.set({ a: { text: a, ids: null }, b: b === undefined ? null : { text: b, ids: null }, selected: null })
  void run()
}

export function InputPanel() {
  const hasSecond = useStore(store, (state) => state.b !== null)
  const special = useStore(store, (state) => state.special)
  const topN = useStore(store, (state) => state.topN)
  const empty = useStore(store, (state) => state.a.text === '' && !state.a.ids)
  const toggleSecond = () => {
    const { a, selected } = store.get()
    if (!hasSecond) store.set({ b: { ...a } })
    else {
      store.set({ b: null, selected: selected?.side === 'b' ? null : selected })
      if (store.get().analyses.a) void run()
    }
  }
  return (
    <section class="input" aria-label="Texts">
      <div class={hasSecond ? 'texts two' : 'texts'}>
        <TextBox side="a" label={hasSecond ? 'Text A' : 'Text'} />
        <TextBox side="b" label="Text B" />
      </div>
      <div class="row">
        <button type="button" id="run" class="primary" disabled={empty} title="Ctrl+Enter" onClick={() => void run()}>
          Analyse
        </button>
        <button type="button" id="second" onClick={toggleSecond}>
          {hasSecond ? 'Close text B' : 'Compare with a second text'}
        </button>
        <label class="inline">
          Top{' '}
          <select
            id="top-n"
            value={topN}
            onChange={(event) => {
              store.set({ topN: Number(event.currentTarget.value) })
              if (store.get().analyses.a) void run()
            }}
          >
            {TOP_NS.map((n) => (
              <option key={n} value={n}>
                {n}
              </option>
            ))}
          </select>
        </label>
        <label class="inline" title="Read names such as <|im_start|> in the text as the tokens they name">
          <input
            type="checkbox"
            id="special"
            checked={special}
            onChange={(event) => store.set({ special: event.currentTarget.checked })}
          />
          Control tokens
        </label>
        <Pins />
      </div>
      <Progress />
      {empty && (
        <p class="examples">
          Or start from an example:{' '}
          {examples.map((example) => (
            <button key={example.name} type="button" class="link" onClick={() => loadExample(example)}>
              {example.name}
            </button>
          ))}
        </p>
      )}
    </section>
  )
}
