// theme.ts: light or dark: as the system says, until somebody chooses on the page.
import { createStore } from './store'
import type { Theme } from './scale'

const STORED = 'logitd-theme'
const system = matchMedia('(prefers-color-scheme: dark)')

function current(): Theme {
  const stored = localStorage.getItem(STORED)
  if (stored === 'light' || stored === 'dark') return stored
  return system.matches ? 'dark' : 'light'
}

export const themeStore = createStore<{ theme: Theme }>({ theme: current() })

function apply(): void {
  const theme = current()
  document.documentElement.dataset.theme = theme
  if (themeStore.get().theme !== theme) themeStore.set({ theme })
}

export function switchTheme(): void {
  localStorage.setItem(STORED, current() === 'dark' ? 'light' : 'dark')
  apply()
}

system.addEventListener('change', apply)
apply()
