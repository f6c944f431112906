import t from 'tap'
import { createDatabase, randomUser, runSql } from './helpers/app.ts'
import { startService } from './helpers/service.ts'
import { onEachStore } from './helpers/stores.ts'

/** A client as HALO's clients are: written from the contract alone, over HTTP, knowing nothing of the service. */
class HaloClient {
  token: string | undefined
  readonly base: string

  constructor (base: string) {
    this.base = base
  }

  async request<T> (method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(`${this.base}/api/v1${path}`, {
      method,
      headers: {
        // Sent with every request, as the clients do, with a body or without.
        'Content-Type': 'application/json',
        ...(this.token ? { Authorization: `Bearer ${this.token}` } : {})
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const data = await response.json() as T & { error?: string, message?: string }
    if (!response.ok) throw Object.assign(new Error(data.message), { code: data.error, status: response.status })
    return data
  }

  async register (person: object): Promise<{ id: number }> {
    const { token, user } = await this.request<{ token: string, user: { id: number } }>(
      'POST',
      '/auth/register',
      person
    )
    this.token = token
    return user
  }

  async login (email: string, password: string): Promise<void> {
    this.token = (await this.request<{ token: string }>('POST', '/auth/login', { email, password })).token
  }
}

onEachStore(t, 'an existing client registers, logs in, reads, lists and likes without a change', async (t, stores) => {
  const url = await createDatabase(t, stores, { isMigrated: false })
  const service = await startService(t, {
    DATABASE_URL: url,
    ...(stores.redisUrl === null ? {} : { REDIS_URL: stores.redisUrl })
  })
  await service.printed(/"listening"/)
  const client = new HaloClient(service.url)
  const person = { ...randomUser(), is_adult: true }

  const { id } = await client.register(person)
  await client.login(person.email, person.password)
  t.match(await client.request('GET', '/auth/me'), {
    id,
    email: person.email,
    display_name: person.display_name,
    is_adult: true,
    adult_mode: false
  })

  await runSql(
    url,
    'insert into videos (user_id, title, is_live) select $1, n::text, n = 1 from generate_series(1, 3) n',
    [id]
  )
  const videos = await client.request<{ id: number, like_count: number }[]>('GET', '/videos?limit=2&offset=0')
  t.equal(videos.length, 2)
  t.equal((await client.request<unknown[]>('GET', '/videos?live=true')).length, 1)
  t.equal((await client.request<unknown[]>('GET', `/users/${id}/videos`)).length, 3)

  const video = videos[0]!
  const liked = await client.request<{ message: string, data: { like_count: number } }>(
    'POST',
    `/videos/${video.id}/engagement/likes`
  )
  t.type(liked.message, 'string')
  t.equal(liked.data.like_count, video.like_count + 1)
  t.match(await client.request('GET', `/videos/${video.id}`), { id: video.id, like_count: video.like_count + 1 })

  await t.rejects(client.request('GET', '/videos/999999'), { code: 'not_found', status: 404, message: /./ })
  await t.rejects(client.request('POST', `/videos/${video.id}/engagement/shares`), {
    code: 'invalid_metric',
    status: 400
  })
  await t.rejects(client.register(person), { code: 'user_exists', status: 409 })
  await t.rejects(client.login(person.email, 'wrong'), { code: 'invalid_credentials', status: 401 })

  const health = await fetch(`${service.url}/health`)
  t.match(await health.json(), { status: 'healthy', database: true, redis: true, time: Number })
})
