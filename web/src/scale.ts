// scale.ts: numbers to colours. A scale is clamped at mean ± 2.5 standard deviations of what it shows, within what
// occurs, so that one outlier does not wash out the rest. Both ramps grow steadily in contrast to the paper, so they read the same
// without colour vision; the hue only helps (tests/scale.test.ts holds them to that). Text on a colour is black or
// white, whichever has more contrast: never less than 4.5 to 1.

export type Rgb = readonly [number, number, number] // 0 … 255, sRGB
export type Theme = 'light' | 'dark'

export interface Domain {
  low: number
  high: number
  clampedLow: boolean // something lies below
  clampedHigh: boolean
}

/** Of the finite values; null when there are none. */
export function domainOf(values: Iterable<number>): Domain | null {
  let [n, mean, squares, min, max] = [0, 0, 0, Infinity, -Infinity]
  for (const value of values) {
    if (!Number.isFinite(value)) continue
    n++
    const delta = value - mean
    mean += delta / n
    squares += delta * (value - mean) // Welford, 1962
    min = Math.min(min, value)
    max = Math.max(max, value)
  }
  if (n === 0) return null
  const reach = 2.5 * Math.sqrt(squares / n)
  const low = Math.max(min, mean - reach)
  const high = Math.min(max, mean + reach)
  return { low, high, clampedLow: min < low, clampedHigh: max > high }
}

/** Where a value lies in a domain: 0 … 1. */
export const fraction = (value: number, { low, high }: Domain): number =>
  high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0

// Stops at equal distances. Light: paper to dark brown by way of yellow and orange (after ColorBrewer's YlOrBr, which is
// safe for colour-blind eyes). Dark: cividis (Nuñez, Anderton and Renslow, 2018), its start sunk into the background.
const sequential: Record<Theme, Rgb[]> = {
  light: [
    [255, 253, 246],
    [255, 243, 190],
    [254, 222, 132],
    [253, 187, 66],
    [243, 143, 34],
    [213, 97, 13],
    [160, 60, 5],
    [96, 32, 8],
  ],
  dark: [
    [26, 30, 38],
    [22, 45, 84],
    [52, 66, 108],
    [84, 91, 110],
    [112, 117, 119],
    [149, 143, 120],
    [190, 173, 108],
    [231, 207, 82],
    [255, 234, 92],
  ],
}
// For differences: blue below, paper at zero, orange above.
const diverging: Record<Theme, Rgb[]> = {
  light: [
    [24, 78, 140],
    [88, 146, 200],
    [176, 208, 233],
    [253, 252, 248],
    [250, 200, 140],
    [228, 128, 40],
    [150, 62, 6],
  ],
  dark: [
    [140, 196, 250],
    [74, 128, 186],
    [40, 70, 108],
    [26, 30, 38],
    [104, 66, 24],
    [184, 112, 32],
    [255, 180, 84],
  ],
}

function interpolate(stops: Rgb[], at: number): Rgb {
  const x = Math.min(1, Math.max(0, at)) * (stops.length - 1)
  const i = Math.min(Math.floor(x), stops.length - 2)
  const mix = (channel: 0 | 1 | 2) =>
    Math.round(stops[i]![channel] + (x - i) * (stops[i + 1]![channel] - stops[i]![channel]))
  return [mix(0), mix(1), mix(2)]
}

/** at: 0 … 1 */
export const sequentialColour = (at: number, theme: Theme): Rgb => interpolate(sequential[theme], at)
/** at: -1 … 1 */
export const divergingColour = (at: number, theme: Theme): Rgb => interpolate(diverging[theme], (at + 1) / 2)

/** Relative luminance (WCAG 2.2). */
export function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((channel) => {
    const c = channel / 255
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  }) as [number, number, number]
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

export function contrast(one: Rgb, other: Rgb): number {
  const [a, b] = [luminance(one) + 0.05, luminance(other) + 0.05]
  return Math.max(a, b) / Math.min(a, b)
}

const BLACK: Rgb = [0, 0, 0]
const WHITE: Rgb = [255, 255, 255]
export const textOn = (colour: Rgb): Rgb => (contrast(colour, BLACK) >= contrast(colour, WHITE) ? BLACK : WHITE)

export const css = ([r, g, b]: Rgb): string => `rgb(${r} ${g} ${b})`

/** A CSS gradient of a ramp, for the legend. */
export function gradient(theme: Theme, kind: 'sequential' | 'diverging'): string {
  const stops = kind === 'sequential' ? sequential[theme] : diverging[theme]
  return `linear-gradient(to right, ${stops.map(css).join(', ')})`
}
