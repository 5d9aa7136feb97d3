// tokens_view.ts: one text as cells, in plain DOM so that 4,000 of them stay fluid: cells are built once for a list of
// tokens, colours are set where they changed, and what is chosen or pointed at is shown by a ring that moves over the
// cells, in a layer of its own: nothing of the text is laid out or painted again. One listener for all.
// Keyboard (a listbox with a roving tabindex): arrows go along the text and between lines, Home and End to its ends,
// Enter goes on to the alternatives.
import type { Colouring, Pairing } from './colouring'
import type { Side } from './link'
import { formatDifference, formatMetric } from './metric'
import { css, divergingColour, sequentialColour, textOn, type Theme } from './scale'
import { leadingBreaks, spokenText, trailingBreaks, visiblePieces } from './token_text'
import type { Metric, Token, Unit } from './types'

export interface TokensActions {
  select(cell: number): void
  hover(cell: number | null): void
  enter(): void
}

export interface Look {
  colouring: Colouring
  theme: Theme
  metric: Metric
  unit: Unit
  numbers: boolean
}

/** A frame over a cell, of which nothing can be chosen. */
function ringOf(name: 'chosen' | 'marked'): HTMLElement {
  const ring = document.createElement('div')
  ring.className = `ring ${name}`
  ring.setAttribute('aria-hidden', 'true')
  ring.hidden = true
  return ring
}

export class TokensView {
  private cells: HTMLElement[] = []
  private tokens: Token[] | null = null
  private pairing: Pairing | null = null
  private colours: string[] = []
  private look: Look | null = null
  private selected = -1
  private marked = -1
  private readonly rings = { marked: ringOf('marked'), chosen: ringOf('chosen') } // this order: the chosen one is on top
  private readonly resized = new ResizeObserver(() => this.placeRings())

  constructor(
    private readonly root: HTMLElement,
    private readonly side: Side,
    private readonly actions: TokensActions,
  ) {
    root.addEventListener('pointerover', (event) => actions.hover(this.cellOf(event.target)))
    root.addEventListener('pointerleave', () => actions.hover(null))
    root.addEventListener('click', (event) => this.choose(this.cellOf(event.target)))
    root.addEventListener('focusin', (event) => this.choose(this.cellOf(event.target)))
    root.addEventListener('keydown', (event) => this.onKey(event))
    this.resized.observe(root)
  }

  destroy(): void {
    this.resized.disconnect()
  }

  private cellOf(target: EventTarget | null): number | null {
    const cell = target instanceof Element ? target.closest<HTMLElement>('[data-cell]') : null
    return cell ? Number(cell.dataset.cell) : null
  }

  private choose(cell: number | null): void {
    if (cell !== null && cell !== this.selected) this.actions.select(cell)
  }

  // ------------------------------------------------------------------------------------------------------ building

  /** Builds the cells; nothing happens while tokens and pairing are the same arrays. */
  build(tokens: Token[], pairing: Pairing | null): void {
    if (tokens === this.tokens && pairing === this.pairing) return
    const hadFocus = this.root.contains(document.activeElement)
    this.tokens = tokens
    this.pairing = pairing
    this.colours = []
    this.look = null
    this.cells = tokens.map((token, i) => this.tokenCell(token, i))
    if (tokens.length > 0) this.cells.push(this.endCell(tokens.length))
    const segments = this.segments()
    this.root.replaceChildren(...segments, this.rings.marked, this.rings.chosen)
    this.root.style.gridRow = `1 / span ${Math.max(1, segments.length)}`
    const selected = this.selected
    this.selected = -1
    this.marked = -1
    this.setSelected(selected, hadFocus)
  }

  private segments(): HTMLElement[] {
    const ranges = this.pairing?.segments.map(({ same, [this.side]: range }) => ({ same, range })) ?? []
    if (ranges.length === 0) ranges.push({ same: true, range: [0, this.cells.length] })
    ranges.at(-1)!.range = [ranges.at(-1)!.range[0], this.cells.length] // the end cell goes with the last one
    return ranges.map(({ same, range }) => {
      const segment = document.createElement('div')
      segment.className = same ? 'segment' : 'segment differs'
      segment.setAttribute('role', 'none')
      segment.append(...this.lines(range))
      return segment
    })
  }

  /** A block for each line of the text: what a pointer is over is then looked for in one of them. */
  private lines([from, to]: [number, number]): HTMLElement[] {
    const lines: HTMLElement[] = []
    let breaks = 1 // before the next cell
    for (let i = from; i < to; i++) {
      const bytes = this.tokens?.[i]?.bytes ?? []
      breaks += lines.length > 0 ? leadingBreaks(bytes) : 0
      for (; breaks > 0; breaks--) {
        const line = document.createElement('div')
        line.className = 'line'
        line.setAttribute('role', 'none')
        lines.push(line)
      }
      lines.at(-1)!.append(this.cells[i]!)
      breaks = trailingBreaks(bytes)
    }
    return lines
  }

  private emptyCell(i: number): HTMLElement {
    const cell = document.createElement('span')
    cell.className = 'token'
    cell.id = `cell-${this.side}-${i}`
    cell.dataset.cell = String(i)
    cell.setAttribute('role', 'option')
    cell.setAttribute('aria-selected', 'false')
    cell.tabIndex = i === 0 ? 0 : -1
    return cell
  }

  private tokenCell(token: Token, i: number): HTMLElement {
    const cell = this.emptyCell(i)
    for (const piece of visiblePieces(token.bytes)) {
      if (piece.kind === 'text') {
        cell.append(piece.text)
        continue
      }
      const sign = document.createElement('i')
      sign.className = piece.kind
      sign.textContent = piece.text
      cell.append(sign)
    }
    return cell
  }

  private endCell(i: number): HTMLElement {
    const cell = this.emptyCell(i)
    cell.classList.add('end')
    cell.textContent = 'next?'
    return cell
  }

  // ----------------------------------------------------------------------------------------------------- colouring

  colour(look: Look): void {
    const { colouring, theme, metric, unit, numbers } = look
    if (this.look && (Object.keys(look) as (keyof Look)[]).every((part) => look[part] === this.look?.[part])) return
    this.look = look
    const at = colouring.at[this.side]
    const values = colouring.values[this.side]
    const format = colouring.kind === 'diverging' ? formatDifference : formatMetric
    this.root.classList.toggle('numbered', numbers)
    this.cells.forEach((cell, i) => {
      const place = at[i] ?? NaN
      const value = values[i] ?? NaN
      const colour = Number.isNaN(place)
        ? null
        : colouring.kind === 'diverging'
          ? divergingColour(place, theme)
          : sequentialColour(place, theme)
      const number = numbers && !Number.isNaN(value) ? format(value, metric, unit) : ''
      const key = `${colour?.join() ?? ''} ${number}`
      if (this.colours[i] === key) return
      this.colours[i] = key
      cell.style.backgroundColor = colour ? css(colour) : ''
      cell.style.color = colour ? css(textOn(colour)) : ''
      cell.classList.toggle('none', colour === null)
      if (numbers) cell.dataset.value = number || '\u00a0'
      else delete cell.dataset.value
    })
  }

  // ----------------------------------------------------------------------------------------- choosing and marking

  /** The chosen cell, or -1; with `focus` the keyboard goes there too. */
  setSelected(i: number, focus = false): void {
    if (i !== this.selected) {
      const old = this.cells[this.selected] ?? this.cells[0]
      if (old) {
        old.setAttribute('aria-selected', 'false')
        old.tabIndex = i < 0 && old === this.cells[0] ? 0 : -1
      }
      if (this.cells[0]) this.cells[0].tabIndex = i < 0 ? 0 : -1
      const cell = this.cells[i]
      cell?.setAttribute('aria-selected', 'true')
      if (cell) cell.tabIndex = 0
      this.selected = i
    }
    if (focus) this.cells[i]?.focus()
  }

  /** The cell that stands for the one that the other text shows, or that a chart points at; or -1. */
  setMarked(i: number): void {
    this.marked = i
  }

  /** Moves the rings to where their cells are now. */
  placeRings(): void {
    const origin = this.root.getBoundingClientRect()
    this.place(this.rings.marked, this.marked, origin)
    this.place(this.rings.chosen, this.selected, origin)
  }

  private place(ring: HTMLElement, i: number, origin: DOMRect): void {
    const cell = this.cells[i]
    ring.hidden = !cell
    if (!cell) return
    const { x, y, width, height } = cell.getBoundingClientRect()
    ring.dataset.of = cell.id
    ring.style.transform = `translate(${x - origin.x}px, ${y - origin.y}px)`
    ring.style.width = `${width}px`
    ring.style.height = `${height}px`
  }

  /** What a screen reader says when the cell gets the focus. */
  describe(i: number, words: string): void {
    const token = this.tokens?.[i]
    this.cells[i]?.setAttribute('aria-label', `${token ? spokenText(token.bytes) : 'what comes next'}${words}`)
  }

  private onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const current = this.cellOf(event.target) ?? 0
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault()
      this.actions.enter()
      return
    }
    const target = this.targetOf(event.key, current)
    if (target === null) return
    event.preventDefault()
    this.cells[Math.min(this.cells.length - 1, Math.max(0, target))]?.focus()
  }

  private targetOf(key: string, current: number): number | null {
    const steps: Record<string, number> = {
      ArrowLeft: current - 1,
      ArrowRight: current + 1,
      Home: 0,
      End: this.cells.length - 1,
    }
    if (key === 'ArrowUp' || key === 'ArrowDown') return this.besides(current, key === 'ArrowUp' ? -1 : 1)
    return steps[key] ?? null
  }

  /** The cell nearest in the line above (-1) or below (1). */
  private besides(current: number, direction: number): number {
    const box = this.cells[current]!.getBoundingClientRect()
    const middle = box.left + box.width / 2
    let line: number | null = null
    let best = current
    let bestDistance = Infinity
    for (let i = current + direction; i >= 0 && i < this.cells.length; i += direction) {
      const other = this.cells[i]!.getBoundingClientRect()
      if (direction < 0 ? other.bottom > box.top + 1 : other.top < box.bottom - 1) continue
      line ??= other.top
      if (Math.abs(other.top - line) > 2) break
      const distance = Math.abs(other.left + other.width / 2 - middle)
      if (distance < bestDistance) [best, bestDistance] = [i, distance]
    }
    return best
  }
}
