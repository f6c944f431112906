import { isActive } from '../../accounts/account-row.ts'
import type { Database } from '../../stores/database.ts'
import type { Batch, Tombstone } from './store.ts'

// Batches of a generation that is fenced off are not merged (counter_fences). The fence rows stay locked until the
// statement commits.
const fence = (shards: string): string => `
    fence as materialized (
      select f.shard, f.generation from counter_fences f where f.shard in (${shards}) order by f.shard for share
    )`
const unfenced = (name: string, from: string, columns: string): string => `
    ${name} as materialized (
      select ${columns} from ${from} g left join fence f on f.shard = g.shard where g.generation >= coalesce(f.generation, 0)
    )`

// A total of the row's own generation wins if it is larger; a total of a later generation is added to the row; one of
// an earlier generation is ignored. Receipts are merged together with the totals in which their comments are counted:
// after a loss of the store, a receipt says that its comment is counted. Videos are locked before their counters, in
// the order of their ids, as deletions do: no deadlocks.
const mergeTotals = {
  name: 'ledger_merge_totals',
  text: `
    with given as materialized (
      select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
        as u (shard, generation, video_id, views, comments, peak)
    ), given_receipts as materialized (
      select * from unnest($7::int[], $8::bigint[], $9::bigint[], $10::text[], $11::text[])
        as u (shard, generation, video_id, use, fingerprint)
    ), ${fence('select shard from given union select shard from given_receipts')},
    ${unfenced('incoming', 'given', 'g.video_id, g.generation, g.views, g.comments, g.peak')},
    ${unfenced('incoming_receipts', 'given_receipts', 'g.video_id, g.use, g.fingerprint')},
    present as materialized (
      select v.id from videos v where v.id in (select video_id from incoming union select video_id from incoming_receipts)
      order by v.id for no key update
    ), receipts as (
      insert into comment_receipts (video_id, use, fingerprint)
      select i.video_id, i.use, i.fingerprint from incoming_receipts i join present p on p.id = i.video_id
      order by i.video_id, i.use
      on conflict do nothing
    ), merged as (
      insert into video_counters as c (video_id, generation, view_n, comment_n, peak_live_viewers)
      select i.video_id, i.generation, i.views, i.comments, i.peak
      from present p join incoming i on i.video_id = p.id
      order by i.video_id
      on conflict (video_id) do update set
        view_n = case when excluded.generation > c.generation then excluded.view_n
          else greatest(c.view_n, excluded.view_n) end,
        comment_base = c.comment_base + case when excluded.generation > c.generation then c.comment_n else 0 end,
        comment_n = case when excluded.generation > c.generation then excluded.comment_n
          else greatest(c.comment_n, excluded.comment_n) end,
        generation = excluded.generation,
        peak_live_viewers = greatest(c.peak_live_viewers, excluded.peak_live_viewers)
      where excluded.generation >= c.generation
    )
    select i.video_id from incoming i left join present p on p.id = i.video_id where p.id is null`
}

// The change with the higher version wins, whichever arrives first. Lock order: users, videos, likes, counters.
const mergeLikes = {
  name: 'ledger_merge_likes',
  text: `
    with given as materialized (
      select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[], $6::bigint[])
        as u (shard, generation, video_id, user_id, liked, version)
    ), ${fence('select shard from given')},
    ${unfenced('incoming', 'given', 'g.video_id, g.generation, g.user_id, g.liked, g.version')}, people as materialized (
      select u.id from users u where u.id in (select user_id from incoming) and ${
    isActive('u.id')
  } order by u.id for key share
    ), present as materialized (
      select v.id from videos v where v.id in (select video_id from incoming) and (select count(*) from people) >= 0
      order by v.id for key share
    ), merged as (
      insert into video_likes as l (video_id, user_id, liked, generation, version)
      select i.video_id, i.user_id, i.liked, i.generation, i.version
      from incoming i join present p on p.id = i.video_id join people u on u.id = i.user_id
      order by i.video_id, i.user_id
      on conflict (video_id, user_id) do update set
        liked = excluded.liked, generation = excluded.generation, version = excluded.version
      where (excluded.generation, excluded.version) > (l.generation, l.version)
    )
    select i.video_id, case when p.id is null then null else i.user_id end as user_id
    from incoming i left join present p on p.id = i.video_id left join people u on u.id = i.user_id
    where p.id is null or u.id is null`
}

/** Rows per statement: serialising more would block the event loop. */
const chunkSize = 2500

/**
 * Merges batches into the ledger; idempotent.
 *
 * @returns tombstones of the videos and users in the batches that do not exist any more
 */
export async function mergeBatches (database: Database, batches: Batch[]): Promise<Tombstone[]> {
  const gone: Tombstone[] = []
  for (const group of groupsOf(batches)) {
    const totals = group.flatMap(rowsOf('counters'))
    const receipts = group.flatMap(rowsOf('receipts'))
    if (totals.length + receipts.length === 0) continue
    const missing = await database.query<{ video_id: number }>(mergeTotals, [
      ...(['shard', 'generation', 'videoId', 'views', 'comments', 'peak'] as const).map(name => column(totals, name)),
      ...(['shard', 'generation', 'videoId'] as const).map(name => column(receipts, name)),
      receipts.map(receipt => receipt.use),
      receipts.map(receipt => receipt.fingerprint)
    ])
    for (const row of missing) gone.push({ videoId: row.video_id, userId: null })
  }
  for (const part of chunks(batches.flatMap(rowsOf('likes')))) {
    const missing = await database.query<{ video_id: number, user_id: number | null }>(
      mergeLikes,
      (['shard', 'generation', 'videoId', 'userId', 'isLiked', 'version'] as const).map(name => column(part, name))
    )
    for (const row of missing) gone.push({ videoId: row.video_id, userId: row.user_id })
  }
  return gone
}

/** Serialises an array of numbers or booleans for PostgreSQL: `pg` itself takes ten times as long. */
export const list = (values: (number | boolean)[]): string => `{${values.join(',')}}`

export const column = <Name extends string>(rows: Record<Name, number | boolean>[], name: Name): string =>
  list(rows.map(row => row[name]))

/** The changes of one kind in a batch, each with its shard and generation. */
const rowsOf =
  <Kind extends 'counters' | 'likes' | 'receipts'>(kind: Kind) => ({ shard, generation, ...batch }: Batch) =>
    (batch[kind] as Batch[Kind][number][]).map(item => ({ ...item, shard, generation }))

function * chunks<T> (items: T[]): Generator<T[]> {
  for (let start = 0; start < items.length; start += chunkSize) yield items.slice(start, start + chunkSize)
}

/** Whole batches, of which a group has at most `chunkSize` totals and receipts, or is one batch. */
function * groupsOf (batches: Batch[]): Generator<Batch[]> {
  let group: Batch[] = []
  let size = 0
  for (const batch of batches) {
    const more = batch.counters.length + batch.receipts.length
    if (group.length > 0 && size + more > chunkSize) {
      yield group
      group = []
      size = 0
    }
    group.push(batch)
    size += more
  }
  if (group.length > 0) yield group
}
