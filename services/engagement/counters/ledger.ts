import type { Database } from '../../stores/database.ts'
import { isActive } from '../../accounts/account-row.ts'
import { column, list, mergeBatches } from './ledger-merge.ts'
import type { AwaitedWrite, Batch, RecoveryLedger, Tombstone, TombstoneCursor } from './store.ts'

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

// A total is there when the row of its generation has reached it; a change of a like, or a later one of the same user,
// when its version has been.
const findWrites = {
  name: 'ledger_find_writes',
  text: `
    select w.position from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) as w (position, video_id, generation, comments)
      join video_counters c on c.video_id = w.video_id and c.generation = w.generation and c.comment_n >= w.comments
    union all
    select w.position from unnest($5::int[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
        as w (position, video_id, user_id, generation, version)
      join video_likes l on l.video_id = w.video_id and l.user_id = w.user_id and (l.generation, l.version) >= (w.generation, w.version)`
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
  return {
    /** Reads the rows of the videos that exist, in any order. */
    read: (videoIds: number[]): Promise<VideoLedgerRow[]> => database.query<VideoLedgerRow>(readRows, [list(videoIds)]),

    /** See {@link mergeBatches}. */
    merge: (batches: Batch[]): Promise<Tombstone[]> => mergeBatches(background, batches),

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

    /** Returns the positions of the given writes that the ledger has. */
    async findWrites (writes: AwaitedWrite[]): Promise<number[]> {
      const all = writes.map((write, position) => ({ ...write, position }))
      const comments = all.filter(write => write.kind === 'comment')
      const likes = all.filter(write => write.kind === 'like')
      const rows = await background.query<{ position: number }>(findWrites, [
        ...(['position', 'videoId', 'generation', 'comments'] as const).map(name => column(comments, name)),
        ...(['position', 'videoId', 'userId', 'generation', 'version'] as const).map(name => column(likes, name))
      ])
      return rows.map(row => row.position)
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
        await mergeBatches(background, [batch])
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
