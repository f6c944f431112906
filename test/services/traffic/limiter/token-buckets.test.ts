import t from 'tap'
import { createTokenBuckets } from '../../../../services/traffic/limiter/token-buckets.ts'

t.test('a bucket, full at first, grants its burst at once and then its rate', async t => {
  const buckets = createTokenBuckets({ rate: 1000, burst: 2000 })
  let granted = 0
  for (let n = 0; n < 5000; n++) if (buckets.take('a', 0) === 0) granted++
  t.equal(granted, 2000)
  t.equal(buckets.remaining('a', 0), 0)
  const waitMs = buckets.take('a', 0)
  t.ok(waitMs > 0 && waitMs <= 1, `the next token is there in ${waitMs} ms`)

  // 5,000 a second for 10 s: the burst, and the rate for ten seconds.
  granted = 0
  for (let n = 1; n <= 50_000; n++) if (buckets.take('b', n / 5) === 0) granted++
  t.ok(Math.abs(granted - 12_000) <= 1, `${granted} of 50,000`)
})

t.test('a bucket, at exactly its rate, is never empty, whatever fractions the clock shows', async t => {
  for (const rate of [3, 7, 1000, 999]) {
    const buckets = createTokenBuckets({ rate, burst: 1 })
    const start = 1_234_567.891
    for (let n = 0; n < 10_000; n++) {
      if (buckets.take('a', start + n * 1000 / rate) !== 0) {
        t.fail(`rate ${rate} was refused at request ${n}`)
        break
      }
    }
  }
  t.pass('none was refused')
})

t.test('memory follows the clients of the last moments, and forgetting a bucket grants nothing', async t => {
  const buckets = createTokenBuckets({ rate: 10, burst: 20 })
  for (let n = 0; n < 1000; n++) buckets.take(`client ${n}`, 0)
  for (let n = 0; n < 20; n++) buckets.take('busy', 0)
  t.equal(buckets.size, 1001)

  // A busy client takes every token as it comes; whatever is forgotten around it, it never gets more.
  let granted = 0
  for (let ms = 1; ms <= 20_000; ms++) if (buckets.take('busy', ms) === 0) granted++
  t.ok(Math.abs(granted - 200) <= 1, `${granted} in 20 s at 10 a second`)
  t.equal(buckets.size <= 2, true, `${buckets.size} buckets are left`)
})

t.test('clients beyond the bound share one bucket', async t => {
  const buckets = createTokenBuckets({ rate: 1, burst: 2, maxClients: 2 })
  t.equal(buckets.take('a', 0), 0)
  t.equal(buckets.take('b', 0), 0)
  t.equal(buckets.take('c', 0), 0)
  t.equal(buckets.take('d', 0), 0)
  t.ok(buckets.take('e', 0) > 0, 'the shared bucket is empty')
  t.equal(buckets.take('a', 0), 0, 'those that were there keep their own')
})
