import createClient from 'openapi-fetch'
import type { components, paths } from './generated/openapi-fetch.ts'

/** Calls every operation of the service with the client of openapi-typescript and openapi-fetch. */
export async function callEveryOperation (baseUrl: string): Promise<void> {
  let token: string | undefined
  const client = createClient<paths>({ baseUrl })
  client.use({
    onRequest ({ request }) {
      if (token !== undefined) request.headers.set('authorization', `Bearer ${token}`)
    }
  })
  const { GET, POST, PATCH, DELETE } = client

  const password = 'password123'
  const name = `fetch_${Math.random().toString(36).slice(2)}`
  const email = `${name}@halo.example`
  const registered = ok(await POST('/api/v1/auth/register', {
    body: { email, username: name, password, display_name: 'Open Fetch' }
  }))
  const login = async (): Promise<components['schemas']['Session']> => {
    const session = ok(await POST('/api/v1/auth/login', { body: { email, password } }))
    token = session.token
    return session
  }
  const session = await login()
  token = ok(await POST('/api/v1/auth/refresh', { body: { refresh_token: session.refresh_token } })).token

  const account = ok(await GET('/api/v1/auth/me'))
  ok(await PATCH('/api/v1/auth/me', { body: { bio: 'Generated' } }))
  const other = ok(await GET('/api/v1/auth/sessions')).find(one => !one.is_current)!
  ok(await DELETE('/api/v1/auth/sessions/{session_id}', { params: { path: { session_id: other.id } } }))
  ok(await POST('/api/v1/auth/password', { body: { current_password: password, new_password: password } }))
  ok(await GET('/api/v1/users/{user_id}', { params: { path: { user_id: registered.user.id } } }))

  const video = ok(await POST('/api/v1/videos', {
    params: { header: { 'idempotency-key': name } },
    body: { title: 'Generated', is_live: true }
  }))
  const params = { path: { id: video.id } }
  const list: components['schemas']['Video'][] = ok(await GET('/api/v1/videos'))
  if (list[0]?.id !== video.id) throw new Error('the newest video is not first')
  ok(await GET('/api/v1/users/{user_id}/videos', {
    params: { path: { user_id: account.id }, query: { limit: 5, live: true } }
  }))
  ok(await GET('/api/v1/videos/{id}', { params }))
  ok(await PATCH('/api/v1/videos/{id}', { params, body: { is_live: false } }))
  const { data } = ok(await POST('/api/v1/videos/{id}/engagement/likes', { params }))
  if (data.like_count !== 1 || data.liked !== true) throw new Error('the like was not counted')
  ok(await DELETE('/api/v1/videos/{id}/engagement/likes', { params }))
  ok(await POST('/api/v1/videos/{id}/engagement/comments', { params }))
  ok(await POST('/api/v1/videos/{id}/engagement/live_viewers', { params }))
  ok(await DELETE('/api/v1/videos/{id}/engagement/live_viewers', { params }))
  ok(await GET('/api/v1/videos/{id}/engagement', { params }))
  const counters = ok(await GET('/api/v1/videos/engagement', { params: { query: { ids: [video.id, list.at(-1)!.id] } } }))
  if (counters[0]?.video_id !== video.id) throw new Error('the counters are of other videos')
  const stream = ok(await GET('/api/v1/videos/{id}/engagement/stream', {
    params: { ...params, query: { duration: 1 } },
    parseAs: 'text'
  }))
  if (!stream.includes('event: counters')) throw new Error(`no event: ${stream}`)
  ok(await DELETE('/api/v1/videos/{id}', { params }))

  const missing = await GET('/api/v1/videos/{id}', { params })
  if (missing.error?.error !== 'not_found') throw new Error('a deleted video is found')

  ok(await GET('/health'))
  ok(await GET('/livez'))
  ok(await GET('/readyz'))
  ok(await GET('/startupz'))
  ok(await GET('/metrics', { parseAs: 'text' }))
  ok(await GET('/errors'))
  ok(await GET('/errors/{code}', { params: { path: { code: 'not_found' } } }))
  ok(await GET('/.well-known/jwks.json'))
  ok(await GET('/openapi.json'))

  ok(await POST('/api/v1/auth/logout'))
  await login()
  ok(await POST('/api/v1/auth/logout-all'))
  await login()
  ok(await DELETE('/api/v1/auth/me', { body: { password } }))
}

function ok<T> ({ data, response }: { data?: T, error?: unknown, response: Response }): T {
  if (!response.ok) throw new Error(`${response.url} answered ${response.status}`)
  return data as T
}
