import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import type { Database } from '../../stores/database.ts'
import { createRedisKeys, likesPattern, parseLikesKey, type GenerationKeys } from './redis-keys.ts'
import { scripts } from './scripts.ts'

/** A counter that differs from its source of truth. */
export interface Drift {
  kind: keyof typeof descriptions
  videoId: number
  is: number
  shouldBe: number
}

const descriptions = {
  like_count: 'likes in the ledger differ from its rows',
  warm_likes: 'likes in Redis differ from the rows',
  behind: 'the total in Redis is below what it had flushed before',
  unmarked: 'the total in Redis is above the ledger’s and is not marked for the next flush',
  orphan: 'Redis counts a video that does not exist'
} as const

/** Describes a drift in one sentence, for operators. */
export const describe = ({ kind, videoId, is, shouldBe }: Drift): string =>
  `video ${videoId}: ${descriptions[kind]} (${is} instead of ${shouldBe})`

export interface VerifyOptions {
  database: Database
  /** Undefined when the counters live in a process: only the ledger is verified then. */
  redis?: Redis | Cluster | undefined
  /** Milliseconds between the two checks: a difference that merely waits for the next flush is gone by then. */
  settleMs?: number
}

export interface VerifyResult {
  /** Videos with counters that were recounted. */
  videos: number
  drifts: Drift[]
}

interface RowsOfVideo {
  video_id: number
  like_count: number
  rows: number
}

const recountLikes = {
  name: 'verify_likes',
  text: `
    select video_id, coalesce(c.like_count, 0) as like_count, coalesce(l.rows, 0) as rows
    from video_counters c
    full join (select video_id, count(*) filter (where liked) as rows from video_likes group by video_id) l using (video_id)`
}

const repairLikes = {
  name: 'repair_likes',
  text: `
    insert into video_counters as c (video_id, like_count)
    select v.id, (select count(*) from video_likes l where l.video_id = v.id and l.liked)
    from (select id from videos where id = any($1::bigint[]) order by id for no key update) v
    on conflict (video_id) do update set like_count = excluded.like_count`
}

const readTotals = {
  name: 'verify_totals',
  text: `
    select v.id as video_id, coalesce(c.generation, 0) as generation, coalesce(c.view_n, 0) as views, coalesce(c.comment_n, 0) as comments
    from videos v left join video_counters c on c.video_id = v.id where v.id = any($1::bigint[])`
}

const readLikers = {
  name: 'verify_likers',
  text: 'select user_id from video_likes where video_id = $1 and liked'
}

type Names = ReturnType<typeof createRedisKeys>

interface Total {
  video_id: number
  generation: number
  views: number
  comments: number
}

/**
 * Compares the counters with their source of truth: ledger totals with the rows they count, Redis totals with the
 * ledger. Checks twice, `settleMs` apart, and reports only drift that is present both times: a difference that is
 * merely waiting for the next flush is not drift.
 *
 * @returns the number of videos checked and the drifts found
 */
export async function verifyCounters ({ database, redis, settleMs = 2000 }: VerifyOptions): Promise<VerifyResult> {
  const first = await findDrifts(database, redis)
  if (first.drifts.length === 0) return first
  await sleep(settleMs)
  const second = await findDrifts(database, redis)
  const persistent = new Set(first.drifts.map(drift => `${drift.kind} ${drift.videoId}`))
  return {
    videos: second.videos,
    drifts: second.drifts.filter(drift => persistent.has(`${drift.kind} ${drift.videoId}`))
  }
}

/** Repairs drifts: ledger rows decide; where there are none, the larger of the two totals does. */
export async function repairCounters ({ database, redis }: VerifyOptions, drifts: Drift[]): Promise<void> {
  const wrong = drifts.filter(({ kind }) => kind === 'like_count').map(({ videoId }) => videoId)
  if (wrong.length > 0) await database.query(repairLikes, [wrong])
  if (!redis) return
  const names = createRedisKeys({ isCluster: redis instanceof Cluster })
  for (const { kind, videoId } of drifts) {
    const shard = names.shardOf(videoId)
    const generation = Number(await redis.hget(names.meta(shard), 'generation') ?? 0)
    const { views, comments, peaks, dirty, likes, unflushed } = names.ofGeneration(shard, generation)
    if (kind === 'warm_likes') {
      // The next like loads them from the rows.
      if (await redis.hexists(unflushed, String(videoId)) === 0) await redis.unlink(likes(videoId))
    } else if (kind === 'orphan') {
      await Promise.all([views, comments, peaks].map(key => redis.hdel(key, String(videoId))))
      await redis.srem(dirty, videoId)
    } else if (kind !== 'like_count') {
      const [row] = await database.query<Total>(readTotals, [[videoId]])
      await redis.eval(
        scripts.raise.text,
        4,
        names.meta(shard),
        views,
        comments,
        dirty,
        generation,
        videoId,
        row?.views ?? 0,
        row?.comments ?? 0
      )
    }
  }
}

async function findDrifts (database: Database, redis: Redis | Cluster | undefined): Promise<VerifyResult> {
  const rows = await database.query<RowsOfVideo>(recountLikes)
  const drifts = rows.filter(row => row.like_count !== row.rows)
    .map((row): Drift => ({ kind: 'like_count', videoId: row.video_id, is: row.like_count, shouldBe: row.rows }))
  const counted = new Set(rows.map(row => row.video_id))
  if (redis) {
    const names = createRedisKeys({ isCluster: redis instanceof Cluster })
    for (let shard = 0; shard < names.shardCount; shard++) {
      const generation = Number(await redis.hget(names.meta(shard), 'generation') ?? 0)
      if (generation > 0) {
        await compareTotals(database, redis, names.ofGeneration(shard, generation), generation, drifts, counted)
      }
    }
    await compareLikes(database, redis, names, drifts)
  }
  return { videos: counted.size, drifts }
}

async function compareTotals (
  database: Database,
  redis: Redis | Cluster,
  keys: GenerationKeys,
  generation: number,
  drifts: Drift[],
  counted: Set<number>
): Promise<void> {
  for (const metric of ['views', 'comments'] as const) {
    for await (const page of scanHash(redis, keys[metric])) {
      const ids = [...page.keys()]
      const known = new Map((await database.query<Total>(readTotals, [ids])).map(row => [row.video_id, row]))
      const marks = await Promise.all(ids.map(id => redis.sismember(keys.dirty, id)))
      ids.forEach((videoId, index) => {
        counted.add(videoId)
        const is = page.get(videoId)!
        const row = known.get(videoId)
        const shouldBe = row?.generation === generation ? row[metric] : 0
        if (!row) drifts.push({ kind: 'orphan', videoId, is, shouldBe: 0 })
        else if (is < shouldBe) drifts.push({ kind: 'behind', videoId, is, shouldBe })
        else if (is > shouldBe && marks[index] === 0) drifts.push({ kind: 'unmarked', videoId, is, shouldBe })
      })
    }
  }
}

/** Compares the likes of warm videos with the rows, member by member. */
async function compareLikes (database: Database, redis: Redis | Cluster, names: Names, drifts: Drift[]): Promise<void> {
  for (const node of redis instanceof Cluster ? redis.nodes('master') : [redis]) {
    for (let cursor = '0', isFirst = true; isFirst || cursor !== '0'; isFirst = false) {
      const [next, found] = await node.scan(cursor, 'MATCH', likesPattern, 'COUNT', 1000)
      cursor = next
      for (const key of found) await compareLikesOf(database, redis, names, key, drifts)
    }
  }
}

async function compareLikesOf (
  database: Database,
  redis: Redis | Cluster,
  names: Names,
  key: string,
  drifts: Drift[]
): Promise<void> {
  const parsed = parseLikesKey(key)
  if (!parsed) return
  const { shard, generation, videoId: id } = parsed
  // Likes of an earlier generation are not used any more; they expire.
  if (Number(await redis.hget(names.meta(shard), 'generation')) !== generation) return
  const { unflushed } = names.ofGeneration(shard, generation)
  if (await redis.hexists(unflushed, String(id)) === 1) return
  const members = new Set((await redis.smembers(key)).map(Number).filter(user => user > 0))
  const rows = new Set((await database.query<{ user_id: number }>(readLikers, [id])).map(row => row.user_id))
  // The set may have expired or changed between the two reads.
  const isStill = await redis.exists(key) === 1 && await redis.hexists(unflushed, String(id)) === 0
  const isSame = members.size === rows.size && [...members].every(user => rows.has(user))
  if (isStill && !isSame) drifts.push({ kind: 'warm_likes', videoId: id, is: members.size, shouldBe: rows.size })
}

async function * scanHash (redis: Redis | Cluster, key: string): AsyncGenerator<Map<number, number>> {
  for (let cursor = '0', isFirst = true; isFirst || cursor !== '0'; isFirst = false) {
    const [next, fields] = await redis.hscan(key, cursor, 'COUNT', 1000)
    cursor = next
    const page = new Map<number, number>()
    for (let index = 0; index < fields.length; index += 2) page.set(Number(fields[index]), Number(fields[index + 1]))
    if (page.size > 0) yield page
  }
}
