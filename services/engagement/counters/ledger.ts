import type { Database } from '../../stores/database.ts'
import { isActive } from '../../accounts/account-row.ts'
import type { Batch, RecoveryLedger, Tombstone, TombstoneCursor } from './store.ts'

/** The counters of a video in PostgreSQL. */
export interface LedgerRow {
  video_id: number
  /** All views: those of the row's generation (`view_n`) and of earlier ones. */
  view_count: number
  generation: number
  view_n: number
  comment_base: number
  comment_n: number
  /** Likes of users. */
  like_count: number
  /** Likes that the Go service had counted, without their users. */
  legacy_likes: number
}

/** A LedgerRow with the columns that decide who may see the video. */
export interface VideoLedgerRow extends LedgerRow {
  user_id: number
  is_adult_content: boolean
}

/** The columns of a LedgerRow except its id, for statements that read videos as `v` and left join counters as `c`. */
export const ledgerColumns = `
  v.view_count, coalesce(c.generation, 0) as generation, coalesce(c.view_n, 0) as view_n,
  coalesce(c.comment_base + c.legacy_comments, 0) as comment_base, coalesce(c.comment_n, 0) as comment_n,
  coalesce(c.like_count, 0) as like_count, coalesce(c.legacy_likes, 0) as legacy_likes`

const readRows = {
  name: 'ledger_read',
  text: `
    select v.id as video_id, v.user_id, v.is_adult_content, ${ledgerColumns}
    from videos v left join video_counters c on c.video_id = v.id
    where v.id = any($1::bigint[]) and ${isActive('v.user_id')}`
}

// Batches of a generation that is fenced off are not merged (counter_fences). The fence row stays locked until the
// statement commits.
const fenced = (columns: string): string => `
    fence as materialized (select f.shard, f.generation from counter_fences f where f.shard in (select shard from given) order by f.shard for share),
    incoming as materialized (
      select ${columns} from given g left join fence f on f.shard = g.shard where g.generation >= coalesce(f.generation, 0)
    )`

// A total of the row's own generation wins if it is larger; a total of a later generation is added to the row; one of
// an earlier generation is ignored. Videos are locked before their counters, in the order of their ids, as deletions
// do: no deadlocks.
const mergeTotals = {
  name: 'ledger_merge_totals',
  text: `
    with given as materialized (
      select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
        as u (shard, generation, video_id, views, comments, peak)
    ), ${fenced('g.video_id, g.generation, g.views, g.comments, g.peak')}, present as materialized (
      select v.id from videos v where v.id in (select video_id from incoming) order by v.id for no key update
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
    ), ${fenced('g.video_id, g.generation, g.user_id, g.liked, g.version')}, people as materialized (
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

const mergeReceipts = {
  name: 'ledger_merge_receipts',
  text: `
    with given as materialized (
      select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
        as u (shard, generation, video_id, use, fingerprint)
    ), ${fenced('g.video_id, g.use, g.fingerprint')}, present as materialized (
      select v.id from videos v where v.id in (select video_id from incoming) order by v.id for key share
    )
    insert into comment_receipts (video_id, use, fingerprint)
    select i.video_id, i.use, i.fingerprint from incoming i join present p on p.id = i.video_id
    order by i.video_id, i.use
    on conflict do nothing`
}

const raiseFence = {
  name: 'ledger_fence',
  text: `
    insert into counter_fences as f (shard, generation) values ($1, $2)
    on conflict (shard) do update set generation = greatest(f.generation, excluded.generation)`
}

const findReceipt = {
  name: 'ledger_find_receipt',
  text: 'select fingerprint, counted_at from comment_receipts where video_id = $1 and use = $2'
}

const likersOfVideo = {
  name: 'ledger_likers_of_video',
  text: 'select user_id from video_likes where video_id = $1 and liked and user_id > $2 order by user_id limit $3'
}

const likedByUser = {
  name: 'ledger_liked_by_user',
  text: 'select video_id from video_likes where user_id = $1 and video_id = any($2::bigint[]) and liked'
}

// After a restore of the database from a backup, the sequence may be behind the generation that Redis has.
const nextGeneration = {
  name: 'ledger_next_generation',
  text: `
    select case when next > $1 then next else setval('counter_generations', $1 + 1) end as generation
    from (select nextval('counter_generations') as next) s`
}

// Tombstones of transactions below the oldest open one have a fixed order: none can be added before them.
const readTombstones = {
  name: 'ledger_tombstones',
  text: `
    select id, video_id, user_id, transaction_id::text::bigint as transaction_id,
      case when user_id is null then not exists (select from videos v where v.id = video_id)
        else not exists (select from users u where u.id = user_id and ${isActive('u.id')}) end as is_gone
    from counter_tombstones
    where (transaction_id, id) > ($1::text::xid8, $2::bigint) and transaction_id < pg_snapshot_xmin(pg_current_snapshot())
    order by transaction_id, id limit 5000`
}

// Videos that were deleted since a tombstone: every process forgets them; one process removes them from the store.
const readDeletedVideos = {
  name: 'ledger_deleted_videos',
  text: `
    select id, video_id, transaction_id::text::bigint as transaction_id from counter_tombstones
    where (transaction_id, id) > ($1::text::xid8, $2::bigint) and transaction_id < pg_snapshot_xmin(pg_current_snapshot())
    order by transaction_id, id limit 5000`
}

// Only tombstones that this process has read, and that are an hour old: by then every other process has read them.
const purge = {
  name: 'ledger_purge',
  text: `
    with tombstones as (delete from counter_tombstones where id in (
      select id from counter_tombstones
      where buried_at < now() - interval '1 hour' and (transaction_id, id) <= ($1::text::xid8, $2::bigint) limit 10000))
    delete from comment_receipts where ctid = any(array(
      select ctid from comment_receipts where counted_at < now() - interval '24 hours' limit 10000))`
}

const takeOver = {
  name: 'ledger_take_over',
  text: `
    with merged as (
      insert into video_counters as c (video_id, legacy_likes, legacy_comments)
      select v.id, o.likes, o.comments
      from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as o (video_id, likes, comments) join videos v on v.id = o.video_id
      order by v.id
      on conflict (video_id) do update set
        legacy_likes = greatest(c.legacy_likes, excluded.legacy_likes),
        legacy_comments = greatest(c.legacy_comments, excluded.legacy_comments)
      returning 1
    )
    select count(*) as videos from merged`
}

/** Rows per statement: serialising more would block the event loop. */
const chunkSize = 2500

/** Likes per page. */
const likersPageSize = 10_000

export type Ledger = ReturnType<typeof createLedger>

/**
 * The ledger: counters in PostgreSQL, absolute totals that are merged by maximum within each generation.
 *
 * @param database for requests
 * @param background for flushes, which may take longer and must not delay requests
 */
export function createLedger (database: Database, background: Database) {
  async function merge (batches: Batch[]): Promise<Tombstone[]> {
    const gone: Tombstone[] = []
    // Receipts first: if the rest never arrives, a comment may be lost with the store, but none is counted twice.
    for (const part of chunks(batches.flatMap(rowsOf('receipts')))) {
      await background.query(mergeReceipts, [
        column(part, 'shard'),
        column(part, 'generation'),
        column(part, 'videoId'),
        part.map(receipt => receipt.use),
        part.map(receipt => receipt.fingerprint)
      ])
    }
    for (const part of chunks(batches.flatMap(rowsOf('counters')))) {
      const missing = await background.query<{ video_id: number }>(
        mergeTotals,
        (['shard', 'generation', 'videoId', 'views', 'comments', 'peak'] as const).map(name => column(part, name))
      )
      for (const row of missing) gone.push({ videoId: row.video_id, userId: null })
    }
    for (const part of chunks(batches.flatMap(rowsOf('likes')))) {
      const missing = await background.query<{ video_id: number, user_id: number | null }>(
        mergeLikes,
        (['shard', 'generation', 'videoId', 'userId', 'isLiked', 'version'] as const).map(name => column(part, name))
      )
      for (const row of missing) gone.push({ videoId: row.video_id, userId: row.user_id })
    }
    return gone
  }

  return {
    /** Reads the rows of the videos that exist, in any order. */
    read: (videoIds: number[]): Promise<VideoLedgerRow[]> => database.query<VideoLedgerRow>(readRows, [list(videoIds)]),

    /**
     * Merges batches; idempotent.
     *
     * @returns tombstones of the videos and users in the batches that do not exist any more
     */
    merge,

    /** Reads the ids of the users who like a video, in pages. */
    async * likersOf (videoId: number): AsyncGenerator<number[]> {
      for (let after = 0, isLast = false; !isLast;) {
        const rows = await database.query<{ user_id: number }>(likersOfVideo, [videoId, after, likersPageSize])
        isLast = rows.length < likersPageSize
        after = rows.at(-1)?.user_id ?? after
        if (rows.length > 0) yield rows.map(row => row.user_id)
      }
    },

    /** Returns the videos, of the given ones, that a user likes. */
    async likedBy (userId: number, videoIds: number[]): Promise<Set<number>> {
      const rows = await database.query<{ video_id: number }>(likedByUser, [userId, list(videoIds)])
      return new Set(rows.map(row => row.video_id))
    },

    /** Finds the receipt of a use of an Idempotency-Key. */
    async findReceipt (videoId: number, use: string): Promise<{ fingerprint: string, countedAt: Date } | undefined> {
      const [row] = await database.query<{ fingerprint: string, counted_at: Date }>(findReceipt, [videoId, use])
      return row && { fingerprint: row.fingerprint, countedAt: row.counted_at }
    },

    /**
     * Reads the tombstones after a cursor, in order, each with its own cursor.
     *
     * @returns at most 5,000; `isGone` is false for a video or user that exists again, after a restore from a backup
     */
    async tombstones (
      since: TombstoneCursor
    ): Promise<{ tombstone: Tombstone, isGone: boolean, cursor: TombstoneCursor }[]> {
      const rows = await background.query<
        { id: number, video_id: number, user_id: number | null, transaction_id: number, is_gone: boolean }
      >(
        readTombstones,
        [String(since.transactionId), since.id]
      )
      return rows.map(row => ({
        tombstone: { videoId: row.video_id, userId: row.user_id },
        isGone: row.is_gone,
        cursor: { transactionId: row.transaction_id, id: row.id }
      }))
    },

    /** Reads the ids of videos that were deleted after a cursor, and the cursor for the next call. */
    async deletedVideos (since: TombstoneCursor): Promise<{ videoIds: number[], cursor: TombstoneCursor }> {
      const rows = await background.query<{ id: number, video_id: number, transaction_id: number }>(readDeletedVideos, [
        String(since.transactionId),
        since.id
      ])
      const last = rows.at(-1)
      return {
        videoIds: rows.map(row => row.video_id),
        cursor: last ? { transactionId: last.transaction_id, id: last.id } : since
      }
    },

    /** Deletes old tombstones up to a cursor, and expired receipts. */
    async purge ({ transactionId, id }: TombstoneCursor): Promise<void> {
      await background.query(purge, [String(transactionId), id])
    },

    /**
     * Merges counts of the Go service, by maximum; idempotent.
     *
     * @returns the number of the videos that exist
     */
    async takeOver (counts: { videoId: number, likes: number, comments: number }[]): Promise<number> {
      const [row] = await background.query<{ videos: number }>(takeOver, [
        list(counts.map(count => count.videoId)),
        list(counts.map(count => count.likes)),
        list(counts.map(count => count.comments))
      ])
      return row?.videos ?? 0
    },

    recovery: {
      async merge (batch) {
        await merge([batch])
      },
      async nextGeneration (above) {
        const [row] = await background.query<{ generation: number }>(nextGeneration, [above])
        return row!.generation
      },
      async fence (shard, generation) {
        await background.query(raiseFence, [shard, generation])
      }
    } satisfies RecoveryLedger
  }
}

/** Serialises an array of numbers or booleans for PostgreSQL: `pg` itself takes ten times as long. */
const list = (values: (number | boolean)[]): string => `{${values.join(',')}}`

const column = <Name extends string>(rows: Record<Name, number | boolean>[], name: Name): string =>
  list(rows.map(row => row[name]))

/** The changes of one kind in a batch, each with its shard and generation. */
const rowsOf =
  <Kind extends 'counters' | 'likes' | 'receipts'>(kind: Kind) => ({ shard, generation, ...batch }: Batch) =>
    (batch[kind] as Batch[Kind][number][]).map(item => ({ ...item, shard, generation }))

function * chunks<T> (items: T[]): Generator<T[]> {
  for (let start = 0; start < items.length; start += chunkSize) yield items.slice(start, start + chunkSize)
}
