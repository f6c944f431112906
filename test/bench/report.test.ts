import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { compareReports, hasRegressed } from '../../bench/compare.ts'
import { judge, type Gate } from '../../bench/gates.ts'
import { toHtml } from '../../bench/html.ts'
import { summarize } from '../../bench/latency.ts'
import type { Row } from '../../bench/measure-scenario.ts'
import { toText, type Report } from '../../bench/report.ts'
import { scenarios } from '../../bench/scenarios.ts'

const flat = (value: number) => ({ median: value, min: value, max: value })

function row (overrides: Partial<Row> = {}): Row {
  return {
    name: 'mix',
    title: 'the mix',
    rate: flat(9000),
    cpuMicros: { median: 100, min: 90, max: 120 },
    bytes: 150_000_000,
    limit: {
      title: 'bare node:http',
      rate: flat(20_000),
      cpuMicros: flat(30),
      rateOfLimit: flat(0.45),
      cpuTimesLimit: 3
    },
    generatorCpu: 0.5,
    isGeneratorBound: false,
    latency: { 30: { rate: 3000, summary: summarize([1, 2, 3, 4]), limit: summarize([1, 1, 1, 1]) } },
    throughput: [[0, 9000], [0.1, 9100]],
    usage: [{ at: 0.25, cpu: 0.9, bytes: 150_000_000 }, { at: 0.5, cpu: 0.95, bytes: 151_000_000 }],
    ...overrides
  }
}

const report = (rows: Row[]): Report => ({
  head: {
    date: '2026-11-25 10:00',
    commit: 'abc1234',
    isDirty: false,
    machine: '2 × a machine',
    command: 'npm run bench',
    stores: 'stores',
    configuration: 'everything on',
    flags: ''
  },
  rows,
  gates: []
})

t.test('percentiles are exact', async t => {
  const hundred = summarize(Array.from({ length: 100 }, (_, n) => 100 - n))
  t.match(hundred, { count: 100, p50: 50, p90: 90, p95: 95, p99: 99, p999: 100, max: 100 })
  t.match(summarize([]), { count: 0, p50: 0, max: 0 })
  t.match(summarize([7]), { p50: 7, p999: 7 })
})

t.test('a gate judges what was measured, and nothing else', async t => {
  const texts = (gates: Gate[], results: object, cores = 2) =>
    judge(gates, results as Record<string, unknown>, cores).map(({ isPassed, text }) => [isPassed, text])
  t.strictSame(
    texts([{ scenario: 'other', measure: 'one', max: 1, why: 'x' }], { mix: row() }),
    [],
    'of a scenario that did not run'
  )
  t.match(
    texts([{ scenario: 'mix', measure: 'limit.cpuTimesLimit', max: 2.9, why: 'x' }, {
      scenario: 'mix',
      measure: 'limit.cpuTimesLimit',
      max: 3,
      why: 'x'
    }], { mix: row() }),
    [[false, /3, at most 2.90/], [true, /at most 3 /]]
  )
  t.match(texts([{ scenario: 'mix', measure: 'rate.median', min: 9001, why: 'x' }], { mix: row() }), [[
    false,
    /9000, at least 9001/
  ]])
  t.match(
    texts([{ scenario: 'mix', measure: 'added.p50.30', max: 0.9, why: 'x' }, {
      scenario: 'mix',
      measure: 'added.p50.70',
      max: 0.9,
      why: 'x'
    }], { mix: row() }),
    [[false, /: 1, at most 0.90/], [true, /not measured/]]
  )
})

t.test('the target is a rate on as many cores as it names, and computed on fewer, and says so', async t => {
  const gate: Gate = { scenario: 'mix', measure: 'target', cores: 8, rate: 50_000, why: 'the target' }
  t.match(judge([gate], { mix: { rate: flat(20_000) } }, 2)[0], {
    isPassed: true,
    value: undefined,
    text: 'mix target: not measured, at least 50000 (the target)'
  }, 'of a service elsewhere nobody knows the CPU time')
  const judged = (cpu: number, rate: number, cores: number) =>
    judge([gate], { mix: row({ cpuMicros: flat(cpu), rate: flat(rate) }) }, cores)[0]!
  t.match(judged(160, 9000, 2), { isPassed: true, text: /160 µs .* 8 of 8 cores .*computed on 2 cores, not measured/ })
  t.match(judged(161, 9000, 2), { isPassed: false })
  t.match(judged(1000, 50_000, 8), { isPassed: true, text: /50000, at least 50000/ })
  t.match(judged(10, 49_999, 8), { isPassed: false })
})

t.test('a comparison sets each run beside its own limit', async t => {
  const before = report([row()])
  const [same] = compareReports(before, [
    row({ cpuMicros: flat(300), rate: flat(3000), limit: { ...row().limit!, cpuMicros: flat(100) } })
  ])
  t.match(same, { cpu: { median: 1 }, rate: { median: 1 } }, 'a machine that is slower is not a slower service')
  t.notOk(hasRegressed(same!))
  const [dearer] = compareReports(before, [row({ limit: { ...row().limit!, cpuTimesLimit: 4 } })])
  t.ok(hasRegressed(dearer!))
  t.strictSame(compareReports(before, [row({ name: 'new' })]), [])
})

t.test('a report is a table, and a page with its plots in it that needs nothing else', async t => {
  const full: Report = {
    ...report([row(), row({ name: 'bound', title: '<one> & another', isGeneratorBound: true })]),
    connections: { idle: 10_000, bytesEach: 9000, latency: summarize([1]), lost: 0 },
    memory: { one: 90_000_000, further: 80_000_000 },
    amount: { amount: 50_000, connections: 1000, answered: 50_000, seconds: 5 },
    gates: [{ isPassed: false, isMeasured: true, text: 'mix: too slow' }, {
      isPassed: true,
      isMeasured: false,
      text: 'one that did not run'
    }]
  }
  const text = toText(full)
  for (
    const part of [
      'commit abc1234',
      '9000',
      '(90.0–120.0)',
      '3.00',
      'the generator was the limit',
      'the mix, at 30 %',
      '50000 of 50000',
      '9.0 KB each, 0 lost',
      '90 MB',
      'FAIL  mix: too slow',
      '–     one that did not run'
    ]
  ) t.ok(text.includes(part), part)
  const html = toHtml(full)
  t.equal(html.match(/<svg/g)?.length, 8)
  t.ok(html.includes('&#60;one&#62; &#38; another'))
  t.notMatch(html, /(?:src|href)=|NaN|Infinity/)
})

t.test('the gates that are in force name scenarios that there are', async t => {
  const gates = JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'bench', 'gates.json'), 'utf8')) as Gate[]
  const names = [...scenarios.map(({ name }) => name), 'amount', 'connections', 'streams', 'memory']
  for (const { scenario, measure, min, max, rate, why } of gates) {
    t.ok(names.includes(scenario), scenario)
    t.equal([min, max, rate].filter(bound => bound !== undefined).length, 1, `${scenario} ${measure}: ${why}`)
  }
})
