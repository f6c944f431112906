import t from 'tap'
import { ExpiringMap } from '../../../services/shared/expiring-map.ts'

t.test('an entry is there for maxAgeMs at least and for twice as long at most', async t => {
  let time = 0
  const map = new ExpiringMap<string, number>({ maxAgeMs: 100, now: () => time })
  map.set('a', 1)
  time = 99
  t.equal(map.get('a'), 1)
  map.set('b', 2)
  time = 198
  t.strictSame([map.get('a'), map.get('b')], [1, 2], 'what came late in a turn is kept for the next')
  time = 200
  t.strictSame([map.get('a'), map.get('b'), map.size], [undefined, undefined, 0])
  map.set('c', 3)
  time = 1000
  t.equal(map.get('c'), undefined, 'a long pause is two turns')
})

t.test('what is deleted is gone, and too many make the older half go', async t => {
  const map = new ExpiringMap<number, number>({ maxAgeMs: 1e9, maxSize: 3 })
  map.set(0, 0)
  map.delete(0)
  t.equal(map.get(0), undefined)
  for (let n = 1; n <= 7; n++) map.set(n, n)
  t.equal(map.size, 4)
  t.strictSame([1, 2, 3, 4, 5, 6, 7].map(n => map.get(n)), [undefined, undefined, undefined, 4, 5, 6, 7])
})
