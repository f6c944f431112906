import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import bcrypt from 'bcryptjs'
import pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import type { ServerConnection } from '../fastify.config.ts'
import { comparisonKey } from '../services/accounts/users.ts'
import { demoLogin, seedUser, seedUsername, seedVideo } from './seed-data.ts'

export interface SeedOptions {
  /** Wanted number of seeded users, including the demo user. */
  users: number
  /** Wanted number of videos of seeded users. */
  videos: number
  onProgress?: (done: number, total: number) => void
}

export interface SeedResult {
  addedUsers: number
  addedVideos: number
}

/** Key of the advisory lock ('SEED' in ASCII): two seeds at once would add the missing rows twice. */
const lockKey = 0x53454544

/**
 * Fills a migrated database up to the wanted numbers of users and videos, by COPY and in one transaction: a second
 * run adds nothing, a killed run leaves nothing, and existing rows are not changed.
 *
 * @throws the database's error; then nothing was added
 */
export async function seed (connection: ServerConnection, options: SeedOptions): Promise<SeedResult> {
  const client = new pg.Client(connection)
  client.on('error', () => {})
  await client.connect()
  try {
    await client.query('begin')
    await client.query(`select pg_advisory_xact_lock(${lockKey})`)
    const addedUsers = await addUsers(client, options.users)
    const addedVideos = await addVideos(client, options)
    await client.query('commit')
    // Fresh statistics: otherwise the planner would take the tables for empty.
    if (addedVideos > 0) await client.query('analyze users, videos')
    return { addedUsers, addedVideos }
  } catch (error) {
    await client.query('rollback').catch(() => {})
    throw error
  } finally {
    await client.end()
  }
}

async function addUsers (client: pg.Client, wanted: number): Promise<number> {
  const { rows } = await client.query<{ username: string }>(
    "select username from users where username ~ '^halo_(demo|[0-9]{6,})$'"
  )
  const present = new Set(rows.map(row => row.username))
  const missing = Array.from({ length: wanted }, (_, n) => n).filter(n => !present.has(seedUsername(n)))
  if (missing.length === 0) return 0
  const now = Date.now()
  // One hash for all users: each takes a tenth of a second, and these accounts protect nothing.
  const hash = bcrypt.hashSync(demoLogin.password, 10)
  await copy(
    client,
    'users (email, username, email_key, username_key, password_hash, display_name, bio, avatar_url, is_adult, created_at, updated_at)',
    missing,
    n => {
      const user = seedUser(n, now)
      return [
        user.email,
        user.username,
        comparisonKey(user.email),
        comparisonKey(user.username),
        hash,
        user.displayName,
        user.bio,
        user.avatarUrl,
        user.isAdult,
        user.createdAt,
        user.createdAt
      ]
    }
  )
  return missing.length
}

async function addVideos (client: pg.Client, { users, videos, onProgress = () => {} }: SeedOptions): Promise<number> {
  const { rows: owners } = await client.query<{ id: string }>(
    "select id from users where username ~ '^halo_(demo|[0-9]{6,})$' order by id limit $1",
    [users]
  )
  const { rows: [existing] } = await client.query<{ count: string }>(
    "select count(*) from videos where stream_url like 'https://stream.halo.example/%'"
  )
  const start = Number(existing!.count)
  const missing = Math.max(0, videos - start)
  const now = Date.now()
  await copy(
    client,
    'videos (user_id, title, description, thumbnail_url, stream_url, is_live, is_adult_content, view_count, created_at, updated_at)',
    numbers(start, start + missing, done => onProgress(done, missing)),
    n => {
      const video = seedVideo(n, owners.length, now)
      return [
        owners[video.owner]!.id,
        video.title,
        video.description,
        video.thumbnailUrl,
        video.streamUrl,
        video.isLive,
        video.isAdultContent,
        video.viewCount,
        video.createdAt,
        video.createdAt
      ]
    }
  )
  return missing
}

function * numbers (from: number, to: number, onProgress: (done: number) => void): Generator<number> {
  for (let n = from; n < to; n++) {
    yield n
    if ((n - from) % 5000 === 4999 || n === to - 1) onProgress(n - from + 1)
  }
}

async function copy (
  client: pg.Client,
  target: string,
  rows: Iterable<number>,
  values: (n: number) => (string | number | boolean)[]
): Promise<void> {
  function * lines (): Generator<string> {
    let batch = ''
    for (const n of rows) {
      batch += values(n).map(escapeText).join('\t') + '\n'
      if (batch.length > 64 * 1024) {
        yield batch
        batch = ''
      }
    }
    if (batch !== '') yield batch
  }
  await pipeline(Readable.from(lines()), client.query(copyFrom(`copy ${target} from stdin`)))
}

/** Serialises a value in the text format of COPY. */
function escapeText (value: string | number | boolean): string {
  return String(value).replace(
    /[\\\t\n\r]/g,
    character => ({ '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' })[character]!
  )
}
