// export_panel.tsx: what is shown, to take away: files, a command line, a link.
import { useState } from 'preact/hooks'
import { Problem, fetchFile, hasKey } from './api'
import { toCsv, toCurl, toJson } from './export'
import type { Side } from './link'
import { Choice } from './pieces'
import { SIDES, linkNow, store } from './session'
import { useStore } from './store'

function save(name: string, content: Blob): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(content)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

const say = (said: string) => store.set({ said })

async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
    say(`${what} copied.`)
  } catch {
    store.set({
      problem: new Problem(
        `the browser does not let this page copy; select the ${what.toLowerCase()} and copy it yourself`,
      ),
    })
  }
}

export function ExportPanel() {
  const analyses = useStore(store, (state) => state.analyses)
  const pins = useStore(store, (state) => state.pinTokens)
  const [chosenSide, setSide] = useState<Side>('a')
  const [line, setLine] = useState<string | null>(null)
  const side = analyses[chosenSide] ? chosenSide : 'a'
  const analysis = analyses[side]
  if (!analysis || analysis.tokens.length === 0) return null

  const csv = () => {
    const parts = SIDES.flatMap((name) => (analyses[name] ? [{ name, analysis: analyses[name] }] : []))
    save('logitd.csv', new Blob([toCsv(parts, pins)], { type: 'text/csv' }))
  }
  const safetensors = async () => {
    try {
      save('logitd.safetensors', await fetchFile({ ...analysis.request, format: 'safetensors' }))
    } catch (error) {
      store.set({ problem: error instanceof Problem ? error : new Problem(String(error)) })
    }
  }
  const curl = () => {
    const text = toCurl(location.origin, analysis.request, hasKey())
    setLine(text)
    void copy(text, 'Command line')
  }
  return (
    <section class="export" aria-labelledby="export-title">
      <h2 id="export-title">Take away</h2>
      <div class="row">
        <button type="button" id="export-csv" title="A row a token; of both texts; nats" onClick={csv}>
          CSV
        </button>
        <button
          type="button"
          id="export-json"
          title="The server’s reply"
          onClick={() => save('logitd.json', new Blob([toJson(analysis)], { type: 'application/json' }))}
        >
          JSON
        </button>
        <button
          type="button"
          id="export-safetensors"
          title="Arrays; asks the server once more"
          onClick={() => void safetensors()}
        >
          safetensors
        </button>
        <button type="button" id="export-curl" title="The request as a command line" onClick={curl}>
          Copy curl
        </button>
        <button
          type="button"
          id="export-link"
          title="The view, in the part of the address that is sent to no server"
          onClick={() => void copy(linkNow(), 'Link')}
        >
          Copy link
        </button>
        {analyses.b && (
          <Choice
            legend="Of text"
            options={SIDES.map((value) => ({ value, label: value.toUpperCase() }))}
            value={side}
            onChange={(value: Side) => setSide(value)}
          />
        )}
      </div>
      {line && (
        <pre id="curl" tabIndex={0} aria-label="Command line">
          {line}
        </pre>
      )}
    </section>
  )
}
