// units.ts: numbers for people. Inside everything is in nats; the unit chosen on the page is applied here alone.
import type { Unit } from './types'

export const inUnit = (nats: number, unit: Unit): number => (unit === 'bits' ? nats / Math.LN2 : nats)

/** Three significant digits or so, without a flood of decimals. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? '∞' : value < 0 ? '−∞' : '–'
  const size = Math.abs(value)
  if (size >= 999.5) return formatCount(Math.round(value)).replace('-', '−')
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.995 ? 2 : 3
  const text = value.toFixed(digits)
  return (Number(text) === 0 ? text.replace('-', '') : text).replace('-', '−')
}

export const formatNats = (nats: number, unit: Unit): string => formatNumber(inUnit(nats, unit))

/** A probability as a percentage, down to very small ones. */
export function formatPercent(probability: number): string {
  const percent = probability * 100
  if (!Number.isFinite(percent)) return '–'
  if (percent >= 10) return `${percent.toFixed(1)} %`
  if (percent >= 0.095) return `${percent.toFixed(2)} %`
  if (percent >= 0.0095) return `${percent.toFixed(3)} %`
  if (percent >= 0.00095) return `${percent.toFixed(4)} %`
  return percent === 0
    ? '0 %'
    : `${percent
        .toExponential(1)
        .replace('e-', '·10⁻')
        .replace(/⁻(\d+)/, (_, n: string) => '⁻' + superscript(n))} %`
}

const superscript = (digits: string): string => [...digits].map((digit) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(digit)]).join('')

export const formatCount = (n: number): string => n.toLocaleString('en-US')
