// charts.ts: line charts with uPlot: one along the text, one over temperatures. Colours come from the page's own
// variables, so that a change of theme draws them anew. For the eyes only: what they show is in the page as numbers too.
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'

export interface Line {
  label: string
  colour: string // a CSS variable's name
  values: (number | null)[]
  dashed?: boolean
}

export interface ChartOptions {
  height: number
  x: number[]
  xLabel?: string
  yLabel: string
  lines: Line[]
  yMax?: number
  /** An index of x under the pointer, or null. */
  onPoint?: (index: number | null) => void
  onClick?: (index: number) => void
  wholeX?: boolean // x counts
}

const variable = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
const FONT = '11px ui-sans-serif, system-ui, sans-serif'

function seriesOf(line: Line): uPlot.Series {
  return {
    label: line.label,
    stroke: variable(line.colour),
    width: 1.5,
    points: { show: false },
    ...(line.dashed ? { dash: [5, 4] } : {}),
  }
}

const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]

function axisOf(label: string | undefined, size: number, whole = false): uPlot.Axis {
  return {
    ...(label ? { label, labelSize: 16, labelFont: FONT } : {}),
    stroke: variable('--muted'),
    grid: { stroke: variable('--line'), width: 1 },
    ticks: { show: false },
    font: FONT,
    size,
    gap: 4,
    ...(whole ? { incrs: WHOLE } : {}),
  }
}

/** Draws a chart into `root`, in place of what was there. Free it with `destroy`. */
export function drawChart(root: HTMLElement, options: ChartOptions): uPlot {
  const { height, x, lines, yMax } = options
  const chart = new uPlot(
    {
      width: Math.max(200, root.clientWidth),
      height,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: false },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), yMax ?? Math.max(high ?? 1, 1e-6) * 1.05] },
      },
      axes: [axisOf(options.xLabel, options.xLabel ? 22 : 20, options.wholeX), axisOf(options.yLabel, 38)],
      series: [{}, ...lines.map(seriesOf)],
      hooks: { setCursor: [(plot) => options.onPoint?.(plot.cursor.idx ?? null)] },
    },
    [x, ...lines.map((line) => line.values)] as uPlot.AlignedData,
    root,
  )
  chart.over.addEventListener('click', () => {
    if (chart.cursor.idx !== null && chart.cursor.idx !== undefined) options.onClick?.(chart.cursor.idx)
  })
  return chart
}

/** Puts the cursor at an index of x, or away. */
export function pointAt(chart: uPlot, index: number | null): void {
  const x = index === null ? undefined : chart.data[0][index]
  if (x === undefined) chart.setCursor({ left: -10, top: -10 }, false)
  else chart.setCursor({ left: chart.valToPos(x, 'x'), top: 0 }, false)
}
