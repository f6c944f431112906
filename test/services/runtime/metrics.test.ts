import t from 'tap'
import { createMetrics, labelsOf, mergeFamilies, toText, withoutGauges, type Family } from '../../../services/runtime/metrics.ts'

t.test('metrics are rendered in the text format, with cumulative buckets', async t => {
  const metrics = createMetrics()
  metrics.gauge('halo_things', 'Things', 'sum', () => 3)
  metrics.counter('halo_done_total', 'Done', () => [[labelsOf({ kind: 'a"\\\n' }), 1], [labelsOf({ kind: 'b' }), 2]])
  const observe = metrics.histogram('halo_time_seconds', 'Time', [0.1, 1])(labelsOf({ route: '/' }))
  for (const seconds of [0.05, 0.1, 0.5, 7]) observe(seconds)
  t.equal(toText(metrics.read()), `# HELP halo_things Things
# TYPE halo_things gauge
halo_things 3
# HELP halo_done_total Done
# TYPE halo_done_total counter
halo_done_total{kind="a\\"\\\\\\n"} 1
halo_done_total{kind="b"} 2
# HELP halo_time_seconds Time
# TYPE halo_time_seconds histogram
halo_time_seconds_bucket{route="/",le="0.1"} 2
halo_time_seconds_bucket{route="/",le="1"} 3
halo_time_seconds_bucket{route="/",le="+Inf"} 4
halo_time_seconds_sum{route="/"} 7.65
halo_time_seconds_count{route="/"} 4
`)
  t.throws(() => metrics.gauge('halo_things', 'Again', 'sum', () => 1), /there is a metric halo_things already/)
})

t.test('the metrics of several processes are merged, each in its way, and no input is changed', async t => {
  const family = (value: number): Family[] => [
    { name: 'sum', help: '', type: 'gauge', merge: 'sum', series: [{ labels: '', value }] },
    { name: 'max', help: '', type: 'gauge', merge: 'max', series: [{ labels: '', value }] },
    { name: 'min', help: '', type: 'gauge', merge: 'min', series: [{ labels: '', value }] },
    { name: 'count', help: '', type: 'counter', series: [{ labels: `of="${value}"`, value }, { labels: '', value }] },
    { name: 'time', help: '', type: 'histogram', bounds: [1], series: [{ labels: '', counts: [value, 1], sum: value }] }
  ]
  const [one, two] = [family(1), family(5)]
  const merged = mergeFamilies([one, two])
  t.match(merged, [
    { series: [{ value: 6 }] },
    { series: [{ value: 5 }] },
    { series: [{ value: 1 }] },
    { series: [{ labels: 'of="1"', value: 1 }, { labels: '', value: 6 }, { labels: 'of="5"', value: 5 }] },
    { series: [{ counts: [6, 2], sum: 6 }] }
  ])
  t.strictSame([one, two], [family(1), family(5)])
  t.strictSame(withoutGauges(merged).map(({ name }) => name), ['count', 'time'])
})
