import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { keyedVideoCount, userCount, videoCount, type World } from './world.ts'

/**
 * What clients do, and what they were told: comments without a key, comments with a key that are repeated until
 * they are taken, likes and their opposite, and heartbeats.
 */

/**
 * Videos by what happens to them, so that each count can be told from the others. Each comment with a key has a
 * video of its own: one that counts twice is seen there, whatever else is lost.
 */
const videosOf = {
  plain: [1, 2, 3, 4, 5, 6, 7, 8],
  liked: [17, 18, 19, 20],
  watched: [21, 22, 23, 24]
} as const
if (videoCount !== 24) throw new Error('The videos are divided above')

const viewersPerLoad = 24

export interface Stored {
  plain: number
  keyed: number
  /** Comments with a key that count more than once. */
  twice: number
  views: number
}

/**
 * What a pair was told last: between which moments, in milliseconds of this process's clock, and whether the answer
 * came.
 */
interface LikeState {
  liked: boolean
  sentAt: number
  at: number
  isSure: boolean
}

export interface Load {
  /** When each comment was acknowledged. */
  plain: number[]
  /** Comments without a key whose answer never came: counted or not, nobody knows. */
  unknown: number
  /** When each comment with a key was acknowledged at first. */
  keyed: number[]
  /** Keys that were given up, because the load ended before an answer came. */
  unanswered: number
  /** `video:user` → the last state that was acknowledged. */
  likes: Map<string, LikeState>
  likesAcknowledged: number[]
  viewers: number
  /** All comments without a key go to this one of their videos; undefined for any. */
  focus: number | undefined
  /** Resolves when the next comment is acknowledged. */
  nextAcknowledgement(): Promise<void>
  /** Nothing new is sent until the returned function is called. */
  pause(): () => void
  stop(): Promise<void>
}

/** Comments that can be under way at once: so many answers may be on the line when Redis loses its memory. */
export const commenters = 16

/** Keys are never used again, in no load. */
let keys = 0

/** Starts clients that go on until they are stopped. @param random a number from 0 to 1 */
export function startLoad (
  world: World,
  likes: Map<string, LikeState>,
  firstViewer: number,
  random: () => number
): Load {
  const used: { video: number, userId: number, key: string }[] = []
  const agent = new http.Agent({ keepAlive: true })
  const over = new AbortController()
  const load: Load = {
    plain: [],
    unknown: 0,
    keyed: [],
    unanswered: 0,
    likes,
    likesAcknowledged: [],
    viewers: viewersPerLoad * videosOf.watched.length,
    focus: undefined,
    nextAcknowledgement () {
      const { promise, resolve } = Promise.withResolvers<void>()
      onAcknowledged = resolve
      return promise
    },
    pause () {
      const { promise, resolve } = Promise.withResolvers<void>()
      gate = promise
      return resolve
    },
    async stop () {
      over.abort()
      await Promise.all(clients)
      agent.destroy()
    }
  }
  let gate = Promise.resolve()
  let onAcknowledged = (): void => {}

  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!

  async function send (
    method: string,
    path: string,
    userId: number,
    headers: Record<string, string> = {}
  ): Promise<number> {
    await gate
    const status = await new Promise<number>(resolve => {
      const request = http.request({
        agent,
        method,
        port: pick(world.replicas).port,
        path: `/api/v1/videos/${path}`,
        headers: { authorization: `Bearer ${world.tokenOf(userId)}`, ...headers },
        timeout: 3000
      }, response => {
        response.resume().once('end', () => resolve(response.statusCode!)).once('error', () => resolve(0))
      })
      request.once('timeout', () => request.destroy()).once('error', () => resolve(0)).end()
    })
    if (status !== 200) await sleep(50)
    return status
  }

  async function comment (): Promise<void> {
    while (!over.signal.aborted) {
      const status = await send(
        'POST',
        `${load.focus === undefined ? pick(videosOf.plain) : videosOf.plain[load.focus]!}/engagement/comments`,
        1 + Math.floor(random() * userCount)
      )
      if (status === 200) {
        load.plain.push(performance.now())
        onAcknowledged()
      } else {
        load.unknown++
      }
    }
  }

  async function commentOnce (): Promise<void> {
    while (!over.signal.aborted) {
      const video = videoCount + ++keys
      if (keys > keyedVideoCount) throw new Error('There are too few videos for so many keys')
      const userId = 1 + Math.floor(random() * userCount)
      const one = { video, userId, key: `key-${keys}` }
      // An answer that never came does not say that nothing was counted: the same key again, until one comes.
      for (let tries = 0; ; tries++) {
        if (await sendOnce(one) === 200) {
          load.keyed.push(performance.now())
          used.push(one)
          break
        }
        if (over.signal.aborted && tries > 200) {
          load.unanswered++
          break
        }
      }
      // And some come again although they were answered: the client never saw it.
      if (random() < 0.3) await sendOnce(pick(used))
      await sleep(20)
    }
  }

  const sendOnce = ({ video, userId, key }: typeof used[number]): Promise<number> =>
    send('POST', `${video}/engagement/comments`, userId, { 'idempotency-key': key })

  async function like (client: number): Promise<void> {
    while (!over.signal.aborted) {
      // Each pair has one client: of two at once nobody could say who was last.
      const pair = `${pick(videosOf.liked)}:${1 + client * 20 + Math.floor(random() * 20)}`
      const [video, userId] = pair.split(':')
      const liked = random() < 0.6
      const before = likes.get(pair)
      const sentAt = performance.now()
      const status = await send(liked ? 'POST' : 'DELETE', `${video}/engagement/likes`, Number(userId))
      const now = performance.now()
      if (status === 200) {
        likes.set(pair, { liked, sentAt, at: now, isSure: true })
        if (before?.liked !== liked) load.likesAcknowledged.push(now)
      } else {
        likes.set(pair, { liked: before?.liked ?? false, sentAt, at: now, isSure: false })
      }
    }
  }

  async function watch (viewer: number): Promise<void> {
    while (!over.signal.aborted) {
      await Promise.all(videosOf.watched.map(video => send('POST', `${video}/engagement/live_viewers`, viewer)))
      await sleep(400)
    }
  }

  const clients = [
    ...Array.from({ length: commenters / 2 }, comment),
    ...Array.from({ length: commenters / 2 }, commentOnce),
    ...Array.from({ length: 6 }, (_, client) => like(client)),
    ...Array.from({ length: viewersPerLoad }, (_, n) => watch(firstViewer + n))
  ]
  return load
}

/** One comment on each video: every shard has a generation then, and after a while it is no young one. */
export async function beginCounting (world: World): Promise<void> {
  const { port } = world.replicas[0]!
  for (let video = 1; video <= videoCount; video++) {
    for (let tries = 0; ; tries++) {
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/videos/${video}/engagement/comments`, {
        method: 'POST',
        headers: { authorization: `Bearer ${world.tokenOf(1)}` }
      })
      if (answer.status === 200) break
      // The first generations take longer on a slow machine than a comment waits for them.
      if (tries === 50) throw new Error(`The service does not count: ${await answer.text()}`)
      await sleep(100)
    }
  }
}

/** What PostgreSQL has. */
export async function readStored (world: World): Promise<Stored> {
  const { rows: [row] } = await world.pool.query<Stored>(
    `
    select coalesce(sum(comment_base + comment_n) filter (where video_id = any($1)), 0)::int as plain,
      coalesce(sum(comment_base + comment_n) filter (where video_id > $2), 0)::int as keyed,
      coalesce(sum(comment_base + comment_n - 1) filter (where video_id > $2 and comment_base + comment_n > 1), 0)::int as twice,
      (select sum(view_count)::int from videos where id = any($3)) as views
    from video_counters`,
    [videosOf.plain, videoCount, videosOf.watched]
  )
  return row!
}

/** `video:user` → liked, in PostgreSQL. */
export async function readLikes (world: World): Promise<Map<string, boolean>> {
  const { rows } = await world.pool.query<{ pair: string, liked: boolean }>(
    "select video_id || ':' || user_id as pair, liked from video_likes"
  )
  return new Map(rows.map(row => [row.pair, row.liked]))
}

/** What each process shows of each video: its four counts, in one text. */
export async function readShown (world: World): Promise<string[]> {
  const ids = Array.from({ length: videoCount }, (_, n) => n + 1)
  return await Promise.all(world.replicas.map(async ({ port }) => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/videos/engagement?ids=${ids.join(',')}`)
    const videos = await answer.json() as {
      video_id: number
      like_count: number
      comment_count: number
      view_count: number
    }[]
    return videos.map(one => `${one.video_id}: ${one.like_count} ${one.comment_count} ${one.view_count}`).join('\n')
  }))
}

/** The same from PostgreSQL. */
export async function readLedger (world: World): Promise<string> {
  const { rows } = await world.pool.query<{ line: string }>(`
    select v.id || ': ' || coalesce(c.like_count, 0) || ' ' || coalesce(c.comment_base + c.comment_n, 0) || ' ' || v.view_count as line
    from videos v left join video_counters c on c.video_id = v.id where v.id <= ${videoCount} order by v.id`)
  return rows.map(row => row.line).join('\n')
}
