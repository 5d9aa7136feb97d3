import assert from 'node:assert/strict'
import test from 'node:test'
import {
  contrast,
  divergingColour,
  domainOf,
  fraction,
  luminance,
  sequentialColour,
  textOn,
  type Rgb,
  type Theme,
} from '../src/scale'

const themes: Theme[] = ['light', 'dark']
const steps = Array.from({ length: 201 }, (_, i) => i / 200)

/** What a dichromat sees (Machado, Oliveira and Fernandes, 2009, severity 1), as relative luminance of linear light. */
const simulations: Record<string, number[]> = {
  protanopia: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
  deuteranopia: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
  tritanopia: [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039],
}

function simulate(colour: Rgb, matrix: number[]): Rgb {
  const linear = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
  const seen = [0, 3, 6].map((row) => linear.reduce((sum, c, i) => sum + c * matrix[row + i]!, 0))
  return seen.map((c) => {
    const clipped = Math.min(1, Math.max(0, c))
    return 255 * (clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055)
  }) as unknown as Rgb
}

for (const theme of themes) {
  const sign = theme === 'light' ? -1 : 1
  test(`${theme}: the sequential ramp goes steadily away from the paper, for colour-blind eyes too`, () => {
    for (const [name, matrix] of [['none', [1, 0, 0, 0, 1, 0, 0, 0, 1]], ...Object.entries(simulations)] as [
      string,
      number[],
    ][]) {
      const lightness = steps.map((at) => luminance(simulate(sequentialColour(at, theme), matrix)))
      for (let i = 10; i < lightness.length; i += 10)
        assert.ok(
          sign * (lightness[i]! - lightness[i - 10]!) > 0,
          `${name} at ${steps[i]}: ${lightness[i - 10]} → ${lightness[i]}`,
        )
    }
  })

  test(`${theme}: both arms of the diverging ramp go steadily away from zero, and differ for colour-blind eyes`, () => {
    for (const arm of [-1, 1]) {
      const lightness = steps.map((at) => luminance(divergingColour(arm * at, theme)))
      for (let i = 20; i < lightness.length; i += 20) assert.ok(sign * (lightness[i]! - lightness[i - 20]!) > 0)
    }
    for (const matrix of Object.values(simulations)) {
      const [below, above] = [
        simulate(divergingColour(-0.7, theme), matrix),
        simulate(divergingColour(0.7, theme), matrix),
      ]
      const distance = Math.hypot(...below.map((c, i) => c - above[i]!))
      assert.ok(distance > 60, `${distance}`)
    }
  })

  test(`${theme}: text on every colour has a contrast of 4.5 or more`, () => {
    for (const at of steps)
      for (const colour of [sequentialColour(at, theme), divergingColour(at, theme), divergingColour(-at, theme)])
        assert.ok(contrast(colour, textOn(colour)) >= 4.5, `${colour.join()}`)
  })
}

test('contrast and luminance are those of WCAG', () => {
  assert.equal(contrast([0, 0, 0], [255, 255, 255]), 21)
  assert.ok(Math.abs(contrast([119, 119, 119], [255, 255, 255]) - 4.478) < 1e-3)
  assert.ok(Math.abs(luminance([255, 0, 0]) - 0.2126) < 1e-12)
})

test('a domain is clamped at mean ± 2.5 sigma, within what occurs', () => {
  assert.deepEqual(domainOf([1, 2, 3]), { low: 1, high: 3, clampedLow: false, clampedHigh: false })
  const values = [...new Array<number>(99).fill(0), 100] // mean 1, sigma √99
  const domain = domainOf(values)!
  assert.equal(domain.low, 0)
  assert.ok(domain.clampedHigh && !domain.clampedLow)
  assert.ok(Math.abs(domain.high - (1 + 2.5 * Math.sqrt(99))) < 1e-9)
  assert.equal(fraction(100, domain), 1)
  assert.equal(fraction(0, domain), 0)
  assert.equal(domainOf([NaN, Infinity]), null)
  assert.equal(fraction(5, domainOf([5, 5])!), 0)
})
