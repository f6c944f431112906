import { client } from './generated/hey-api/client.gen.ts'
import * as halo from './generated/hey-api/index.ts'

/** Calls every operation of the service with the client of @hey-api/openapi-ts. */
export async function callEveryOperation (baseUrl: string): Promise<void> {
  let token: string | undefined
  client.setConfig({ baseUrl, auth: () => token })

  const password = 'password123'
  const name = `hey_${Math.random().toString(36).slice(2)}`
  const email = `${name}@halo.example`
  const registered = ok(await halo.register({ body: { email, username: name, password, display_name: 'Hey API' } }))
  const login = async (): Promise<halo.Session> => {
    const session = ok(await halo.login({ body: { email, password } }))
    token = session.token
    return session
  }
  const session = await login()
  token = ok(await halo.refreshTokens({ body: { refresh_token: session.refresh_token } })).token

  const account: halo.Account = ok(await halo.getAccount())
  ok(await halo.updateAccount({ body: { bio: 'Generated' } }))
  const other = ok(await halo.listSessions()).find(one => !one.is_current)!
  ok(await halo.endSession({ path: { session_id: other.id } }))
  ok(await halo.changePassword({ body: { current_password: password, new_password: password } }))
  ok(await halo.getProfile({ path: { user_id: registered.user.id } }))

  const video: halo.Video = ok(await halo.publishVideo({
    headers: { 'idempotency-key': name },
    body: { title: 'Generated', is_live: true }
  }))
  const path = { id: video.id }
  const list = ok(await halo.listVideos())
  if (list[0]?.id !== video.id) throw new Error('the newest video is not first')
  ok(await halo.listVideosOfUser({ path: { user_id: account.id }, query: { limit: 5, live: true } }))
  ok(await halo.getVideo({ path }))
  ok(await halo.updateVideo({ path, body: { is_live: false } }))
  const { data } = ok(await halo.likeVideo({ path }))
  if (data.like_count !== 1 || data.liked !== true) throw new Error('the like was not counted')
  ok(await halo.unlikeVideo({ path }))
  ok(await halo.countComment({ path }))
  ok(await halo.sendHeartbeat({ path }))
  ok(await halo.leaveVideo({ path }))
  ok(await halo.getCounters({ path }))
  const counters = ok(await halo.listCounters({ query: { ids: [video.id, list[list.length - 1]!.id] } }))
  if (counters[0]?.video_id !== video.id) throw new Error('the counters are of other videos')
  const { stream } = await halo.streamCounters({ path, query: { duration: 1 }, sseMaxRetryAttempts: 1 })
  const { value: event } = await stream.next()
  if (event === undefined || !('like_count' in event)) throw new Error('the first event has no counters')
  await stream.return(undefined)
  ok(await halo.deleteVideo({ path }))

  const missing = await halo.getVideo({ path })
  if (missing.error?.error !== 'not_found') throw new Error('a deleted video is found')

  ok(await halo.getHealth())
  ok(await halo.getLiveness())
  ok(await halo.getReadiness())
  ok(await halo.getStartup())
  ok(await halo.getMetrics())
  ok(await halo.listErrors())
  ok(await halo.getError({ path: { code: 'not_found' } }))
  ok(await halo.getPublicKeys())
  ok(await halo.getDocument())

  ok(await halo.logout())
  await login()
  ok(await halo.logoutAll())
  await login()
  ok(await halo.deleteAccount({ body: { password } }))
}

function ok<T> ({ data, response }: { data?: T, error?: unknown, response?: Response }): T {
  if (!response?.ok) throw new Error(`${response?.url ?? 'a request'} answered ${response?.status ?? 'nothing'}`)
  return data as T
}
