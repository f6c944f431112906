import t from 'tap'
import type { Batch, PendingCounters } from '../../../../services/engagement/counters/store.ts'
import { addVideo, createApp, signUp } from '../../../helpers/app.ts'
import { onEachStore } from '../../../helpers/stores.ts'
import { until } from '../../../helpers/until.ts'

const batchOf = (generation: number, counters: PendingCounters): Batch => ({
  shard: 0,
  generation,
  counters: [counters],
  likes: [],
  receipts: [],
  isPartial: false,
  lookedAt: Date.now()
})

onEachStore(t, 'a batch, older than what the ledger has, lowers no total and no peak', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const videoId = await addVideo(app, user.id)
  const { ledger } = app.counters
  const merged = async (generation: number, views: number, comments: number, peak: number) => {
    await ledger.merge([batchOf(generation, { videoId, views, comments, peak })])
    const { rows: [row] } = await app.pg.query(
      `
      select c.view_n, c.comment_base, c.comment_n, c.peak_live_viewers, v.view_count
      from video_counters c join videos v on v.id = c.video_id where v.id = $1`,
      [videoId]
    )
    return row as object
  }
  const first = { view_n: 9, comment_base: 0, comment_n: 7, peak_live_viewers: 5, view_count: 9 }
  t.strictSame(await merged(1, 9, 7, 5), first)
  t.strictSame(await merged(1, 4, 3, 2), first, 'one that arrives late')
  t.strictSame(await merged(1, 9, 7, 5), first, 'one that arrives twice')
  const second = { view_n: 2, comment_base: 7, comment_n: 1, peak_live_viewers: 5, view_count: 11 }
  t.strictSame(await merged(2, 2, 1, 1), second, 'a later generation begins on top of it')
  t.strictSame(await merged(1, 90, 70, 50), second, 'one of an earlier generation')
})

onEachStore(t, 'a video or a user, deleted and back under the old id, is not told of as gone', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const [back, gone, liked] = [await addVideo(app, user.id), await addVideo(app, user.id), await addVideo(app, user.id)]
  const people = [await signUp(app), await signUp(app)]
  const ids = people.map(one => one.user.id)
  await app.pg.query(
    'insert into video_likes (video_id, user_id, liked, generation, version) select $1, unnest($2::bigint[]), true, 1, 1',
    [liked, ids]
  )
  const { rows: [copy] } = await app.pg.query<{ user: object }>(
    'select to_jsonb(u) as user from users u where id = $1',
    [ids[0]]
  )
  await app.pg.query('delete from videos where id = any($1)', [[back, gone]])
  await app.pg.query('delete from users where id = any($1)', [ids])
  // From a backup.
  await app.pg.query('insert into videos (id, user_id, title) overriding system value values ($1, $2, $3)', [
    back,
    user.id,
    'A video'
  ])
  await app.pg.query('insert into users overriding system value select * from jsonb_populate_record(null::users, $1)', [
    copy!.user
  ])
  const found = await until('the deletions lie behind every open transaction', async () => {
    const found = await app.counters.ledger.tombstones({ transactionId: 0, id: 0 })
    return found.length === 4 ? found : undefined
  })
  t.equal((await app.pg.query('select from counter_tombstones')).rows.length, 4, 'the control: four were buried')
  t.strictSame(found.filter(({ isGone }) => isGone).map(({ tombstone }) => tombstone), [
    { videoId: gone, userId: null },
    { videoId: liked, userId: ids[1] }
  ])
})

onEachStore(
  t,
  'what is of a generation that its shard has left is not merged, also where the next one has counted nothing yet',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { user } = await signUp(app)
    const videoId = await addVideo(app, user.id)
    const { ledger } = app.counters
    const kept = async () =>
      (await app.pg.query(`
    select (select coalesce(sum(view_n), 0)::int from video_counters) as views, (select count(*) from video_likes) as likes, (select count(*) from comment_receipts) as receipts`))
        .rows[0] as object
    const merge = (generation: number, shard = 0) =>
      ledger.merge([{
        ...batchOf(generation, { videoId, views: 3, comments: 2, peak: 1 }),
        shard,
        likes: [{ videoId, userId: user.id, isLiked: true, version: 1 }],
        receipts: [{ videoId, use: 'a use', fingerprint: 'f' }]
      }])
    await ledger.recovery.fence(0, 5)
    await merge(4)
    t.strictSame(await kept(), { views: 0, likes: 0, receipts: 0 })
    await ledger.recovery.fence(0, 3)
    await merge(4)
    t.strictSame(await kept(), { views: 0, likes: 0, receipts: 0 }, 'no fence goes back')
    await merge(5)
    t.strictSame(await kept(), { views: 3, likes: 1, receipts: 1 }, 'the control: the generation of the fence')
  }
)

onEachStore(t, 'of two changes of a like the later one wins, whichever arrives first', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const videoId = await addVideo(app, user.id)
  const change = async (generation: number, version: number, isLiked: boolean) => {
    await app.counters.ledger.merge([{
      shard: 0,
      generation,
      counters: [],
      likes: [{ videoId, userId: user.id, isLiked, version }],
      receipts: [],
      isPartial: false,
      lookedAt: Date.now()
    }])
    const { rows: [row] } = await app.pg.query<{ liked: boolean, likes: number }>(
      'select l.liked, c.like_count as likes from video_likes l left join video_counters c using (video_id) where l.video_id = $1',
      [videoId]
    )
    return row!
  }
  t.strictSame(await change(1, 7, true), { liked: true, likes: 1 })
  t.strictSame(await change(1, 6, false), { liked: true, likes: 1 }, 'an earlier version')
  t.strictSame(await change(1, 7, true), { liked: true, likes: 1 }, 'the same once more')
  t.strictSame(await change(1, 8, false), { liked: false, likes: 0 }, 'a later version')
  t.strictSame(await change(2, 1, true), { liked: true, likes: 1 }, 'versions start again with each generation')
  t.strictSame(await change(1, 9, false), { liked: true, likes: 1 }, 'of an earlier generation')
})

onEachStore(t, 'a write is found in the ledger when its total, or its version, has arrived in its generation', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const videoId = await addVideo(app, user.id)
  const { ledger } = app.counters
  const comment = (generation: number, comments: number) =>
    ledger.findWrites([{ kind: 'comment', videoId, generation, comments }])
  const like = (generation: number, version: number) =>
    ledger.findWrites([{ kind: 'like', videoId, userId: user.id, generation, version }])
  t.strictSame(await comment(1, 1), [], 'nothing was merged yet')
  await ledger.merge([batchOf(1, { videoId, views: 0, comments: 7, peak: 0 })])
  t.strictSame([await comment(1, 7), await comment(1, 8), await comment(2, 1)], [[0], [], []])
  await ledger.merge([batchOf(2, { videoId, views: 0, comments: 1, peak: 0 })])
  t.strictSame([await comment(2, 1), await comment(1, 7)], [[0], []], 'of an earlier generation nobody can say')
  const likes = [{ videoId, userId: user.id, isLiked: false, version: 5 }]
  await ledger.merge([{ ...batchOf(2, { videoId, views: 0, comments: 1, peak: 0 }), likes }])
  t.strictSame([await like(2, 4), await like(2, 5), await like(2, 6), await like(1, 9)], [[0], [0], [], [0]])
  t.strictSame(
    await ledger.findWrites([
      { kind: 'comment', videoId, generation: 2, comments: 2 },
      { kind: 'like', videoId, userId: user.id, generation: 2, version: 5 },
      { kind: 'comment', videoId, generation: 2, comments: 1 }
    ]).then(found => found.toSorted()),
    [1, 2],
    'by their positions'
  )
})

onEachStore(t, 'a receipt and the total that counts its comment are merged together, or neither is', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const videoId = await addVideo(app, user.id)
  const { ledger } = app.counters
  const receipts = [{ videoId, use: 'a use', fingerprint: 'f' }]
  // A total that no column can hold fails the statement.
  const impossible = { videoId, views: 0, comments: -1, peak: 0 }
  await app.pg.query('alter table video_counters add constraint only_positive check (comment_n >= 0)')
  await t.rejects(ledger.merge([{ ...batchOf(1, impossible), receipts }]))
  t.equal(await ledger.findReceipt(videoId, 'a use'), undefined)
  await ledger.merge([{ ...batchOf(1, { ...impossible, comments: 1 }), receipts }])
  t.match(await ledger.findReceipt(videoId, 'a use'), { fingerprint: 'f' })
})
