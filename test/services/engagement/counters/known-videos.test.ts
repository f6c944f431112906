import t from 'tap'
import { createKnownVideos } from '../../../../services/engagement/counters/known-videos.ts'
import type { VideoLedgerRow } from '../../../../services/engagement/counters/ledger.ts'

function scene () {
  let now = 1_000_000
  let isUnavailable = false
  let likes = 0
  const asked: number[][] = []
  const known = createKnownVideos({
    now: () => now,
    maxSize: 4,
    async read (ids) {
      asked.push(ids)
      if (isUnavailable) throw new Error('away')
      return ids.filter(id => id < 100).map((id): VideoLedgerRow => ({
        video_id: id,
        user_id: 1,
        is_adult_content: false,
        view_count: 0,
        generation: 0,
        view_n: 0,
        comment_base: 0,
        comment_n: 0,
        like_count: likes,
        legacy_likes: 0
      }))
    }
  })
  return {
    known,
    asked,
    pass: (ms: number) => {
      now += ms
    },
    goAway: (value: boolean) => {
      isUnavailable = value
    },
    like: () => {
      likes++
    }
  }
}

t.test('a video is asked for once, all of one turn together, and one that does not exist each time', async t => {
  const { known, asked } = scene()
  await Promise.all([known.get([1, 2]), known.get([2, 3]), known.get([100])])
  t.strictSame(asked, [[1, 2, 3, 100]])
  t.strictSame([...(await known.get([1, 2, 3])).keys()], [1, 2, 3])
  t.equal((await known.get([100])).size, 0)
  t.strictSame(asked, [[1, 2, 3, 100], [100]])
})

t.test('a stale row is refreshed in the background; an expired one is awaited', async t => {
  const { known, asked, pass, like } = scene()
  await known.get([1])
  like()
  pass(11_000)
  t.equal((await known.get([1])).get(1)!.like_count, 0, 'not waited for')
  await new Promise(resolve => setTimeout(resolve, 5))
  t.equal((await known.get([1])).get(1)!.like_count, 1)
  like()
  pass(61_000)
  const both = await Promise.all([known.get([1]), known.get([1])])
  t.strictSame(both.map(found => found.get(1)!.like_count), [2, 2], 'both waited, for one statement')
  t.equal(asked.length, 3)
  pass(-3_600_000)
  t.equal((await known.get([1])).get(1)!.like_count, 2, 'a clock that was set back makes it old, not eternal')
  t.equal(asked.length, 4)
})

t.test('what is known stays known while PostgreSQL is unavailable, and is asked for once a second', async t => {
  const { known, asked, pass, goAway } = scene()
  await known.get([1])
  goAway(true)
  pass(120_000)
  for (let n = 0; n < 10; n++) t.equal((await known.get([1])).size, 1)
  t.equal(asked.length, 2)
  await t.rejects(known.get([2]), { message: 'away' })
  await t.rejects(known.reload([1]))
})

t.test('memory is bounded: who was renewed longest ago goes first', async t => {
  const { known, asked } = scene()
  for (const id of [1, 2, 3, 4]) await known.get([id])
  t.equal(known.size, 4)
  await known.get([5])
  t.equal(known.size, 3, 'a generation is dropped as a whole')
  asked.length = 0
  await known.get([3, 4, 5])
  t.strictSame(asked, [])
  await known.get([1])
  t.strictSame(asked, [[1]])
  known.forget(1)
  t.equal(known.size, 3)
})
