// explorer.tsx: the page at /: puts the panels together and starts the session.
import { render } from 'preact'
import { chosenCells } from './chosen'
import { AlongPanel } from './along_panel'
import { Details } from './details'
import { ExportPanel } from './export_panel'
import { InputPanel } from './input_panel'
import { KeyDialog } from './key_dialog'
import { onLogitsWanted, start, store } from './session'
import { useStore } from './store'
import { SweepPanel } from './sweep_panel'
import { TextPanel } from './text_panel'
import { switchTheme, themeStore } from './theme'
import { formatCount } from './units'
import './style.css'

function Header() {
  const model = useStore(store, (state) => state.model)
  const theme = useStore(themeStore, (state) => state.theme)
  return (
    <header>
      <h1>logitd</h1>
      {model && (
        <p id="model">
          {model.name}{' '}
          <span>
            · {formatCount(model.n_vocab)} tokens · {model.backend}, {model.precision}
          </span>
        </p>
      )}
      <nav>
        <a href="/docs">API</a>
        <button type="button" id="theme" onClick={switchTheme}>
          {theme === 'dark' ? 'Light' : 'Dark'}
        </button>
      </nav>
    </header>
  )
}

function ProblemBox() {
  const problem = useStore(store, (state) => state.problem)
  if (!problem) return null
  return (
    <div class="problem" role="alert">
      <p>
        {problem.message.slice(0, 1).toUpperCase() + problem.message.slice(1)}
        {/[.!?)]$/.test(problem.message) ? '' : '.'}
      </p>
      <button type="button" aria-label="Dismiss" onClick={() => store.set({ problem: null })}>
        ×
      </button>
    </div>
  )
}

function Said() {
  const said = useStore(store, (state) => state.said)
  return (
    <p class="hidden" role="status" id="said">
      {said}
    </p>
  )
}

/** From a token on to the alternatives in its place. */
const focusBars = () => document.querySelector<HTMLElement>('#bars .bar:not(:disabled)')?.focus()

function Page() {
  return (
    <>
      <Header />
      <main>
        <InputPanel />
        <ProblemBox />
        <div class="columns">
          <div class="wide">
            <TextPanel onEnter={focusBars} />
            <AlongPanel />
            <SweepPanel />
            <ExportPanel />
          </div>
          <Details />
        </div>
      </main>
      <Said />
      <KeyDialog />
    </>
  )
}

onLogitsWanted(() => {
  const state = store.get()
  const chosen = chosenCells({ ...state, hovered: null })
  return chosen.flatMap(({ side, cell }) => (state.analyses[side] ? [{ analysis: state.analyses[side], cell }] : []))
})
render(<Page />, document.getElementById('page')!)
void start()
