import type { Summary } from './latency.ts'
import type { Row } from './measure-scenario.ts'
import { toText, type Report } from './report.ts'

interface Line {
  name: string
  points: [x: number, y: number][]
}

const colors = ['#2563eb', '#93c5fd', '#dc2626', '#fca5a5', '#059669', '#6ee7b7']
const size = { width: 480, height: 240, left: 56, right: 12, top: 12, bottom: 40 }

const escape = (text: string): string => text.replace(/[&<>"]/g, sign => `&#${sign.charCodeAt(0)};`)

/** Numbers for an axis: round ones, some five of them. */
function ticks (max: number): number[] {
  const raw = max / 5
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map(factor => factor * power).find(value => value >= raw)!
  return Array.from({ length: Math.floor(max / step + 1e-9) + 1 }, (_, n) => n * step)
}

const label = (value: number): string => value >= 10_000 ? `${value / 1000}k` : String(Number(value.toPrecision(3)))

interface Axis {
  title: string
  at?: [value: number, text: string][]
}

/** Lines over each other, as SVG. */
function plot (title: string, lines: Line[], x: Axis, y: Axis): string {
  const points = lines.flatMap(line => line.points)
  if (points.length === 0) return ''
  const maxX = Math.max(...points.map(([value]) => value), 1e-9)
  const maxY = Math.max(...points.map(([, value]) => value), 1e-9) * 1.05
  const toX = (value: number): number => size.left + value / maxX * (size.width - size.left - size.right)
  const toY = (value: number): number =>
    size.height - size.bottom - value / maxY * (size.height - size.top - size.bottom)
  const gridY = ticks(maxY).map(value =>
    `<line x1="${size.left}" x2="${size.width - size.right}" y1="${toY(value)}" y2="${
      toY(value)
    }" class="grid"/><text x="${size.left - 6}" y="${toY(value) + 4}" text-anchor="end">${label(value)}</text>`
  )
  const gridX = (x.at ?? ticks(maxX).map(value => [value, label(value)] as [number, string]))
    .map(([value, text]) =>
      `<line x1="${toX(value)}" x2="${toX(value)}" y1="${size.top}" y2="${
        size.height - size.bottom
      }" class="grid"/><text x="${toX(value)}" y="${
        size.height - size.bottom + 14
      }" text-anchor="middle">${text}</text>`
    )
  const drawn = lines.map(({ points }, index) =>
    `<polyline fill="none" stroke="${colors[index % colors.length]}" stroke-width="1.6" points="${
      points.map(([a, b]) => `${toX(a).toFixed(1)},${toY(b).toFixed(1)}`).join(' ')
    }"/>`
  )
  const legend = lines.map(({ name }, index) =>
    `<span style="color:${colors[index % colors.length]}">■</span> ${escape(name)}`
  ).join(' &nbsp; ')
  return `<figure><figcaption>${
    escape(title)
  }<br><small>${legend}</small></figcaption><svg viewBox="0 0 ${size.width} ${size.height}" role="img" aria-label="${
    escape(title)
  }">${[...gridY, ...gridX, ...drawn].join('')}<text x="${size.width / 2}" y="${
    size.height - 6
  }" text-anchor="middle">${escape(x.title)}</text><text x="12" y="${size.height / 2}" transform="rotate(-90 12 ${
    size.height / 2
  })" text-anchor="middle">${escape(y.title)}</text></svg></figure>`
}

/** Percentiles stand the wider apart the rarer they are: the axis counts nines. */
const nines = (percent: number): number => -Math.log10(1 - Math.min(percent, 99.99) / 100)

const curveOf = ({ curve }: Summary): Line['points'] =>
  curve.filter(([percent]) => percent <= 99.99).map(([percent, ms]) => [nines(percent), ms])

function plotsOf ({ title, latency = {}, throughput, usage }: Row): string {
  const percentiles: Axis = {
    title: 'percentile',
    at: [0, 50, 90, 95, 99, 99.9, 99.99].map(percent => [nines(percent), String(percent)])
  }
  return [
    plot(
      'Latency by percentile',
      Object.entries(latency).flatMap(([level, { summary, limit }]) => [
        { name: `${level} % of the capacity`, points: curveOf(summary) },
        ...limit ? [{ name: 'its limit at that rate', points: curveOf(limit) }] : []
      ]),
      percentiles,
      { title: 'ms' }
    ),
    plot('Throughput over time', [{ name: 'all rounds', points: throughput }], { title: 's' }, { title: 'answers/s' }),
    plot('CPU over time', [{ name: 'of the service', points: usage.map(({ at, cpu }) => [at, cpu * 100]) }], {
      title: 's'
    }, { title: '% of a CPU' }),
    plot('Memory over time', [{ name: 'resident', points: usage.map(({ at, bytes }) => [at, bytes / 1e6]) }], {
      title: 's'
    }, { title: 'MB' })
  ].join('').replace(/^$/, `<p>${escape(title)}: nothing to draw</p>`)
}

/** The report as one page that needs nothing else. */
export function toHtml (report: Report): string {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>HALO API bench, ${escape(report.head.commit)}</title>
<style>body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1080px;padding:0 1rem}pre{overflow:auto;font-size:12px;background:#f6f6f6;padding:1rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:1rem}figure{margin:0}svg{width:100%}svg text{font-size:11px;fill:#555}.grid{stroke:#e2e2e2}h2{margin-top:2rem}</style>
<h1>HALO API bench</h1><pre>${escape(toText(report))}</pre>
${report.rows.map(row => `<h2>${escape(row.title)}</h2><div class="plots">${plotsOf(row)}</div>`).join('\n')}
</html>
`
}
