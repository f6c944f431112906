import t from 'tap'
import { addVideo, createApp, signUp } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { onEachStore } from '../helpers/stores.ts'

onEachStore(t, 'a video, read by its id, has every member of the contract and no other', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const at = new Date('2026-01-02T03:04:05.678Z')
  const id = await addVideo(app, user.id, {
    title: 'Évening 🌅 "quoted" \\ ', description: 'two\nlines', stream_url: 'https://stream.example/1', is_live: true, view_count: 7, created_at: at, updated_at: at
  })
  const response = await app.inject(`/api/v1/videos/${id}`)
  t.equal(response.statusCode, 200)
  t.strictSame(response.json(), {
    id,
    user_id: user.id,
    title: 'Évening 🌅 "quoted" \\ ',
    description: 'two\nlines',
    thumbnail_url: '',
    stream_url: 'https://stream.example/1',
    is_live: true,
    is_adult_content: false,
    view_count: 7,
    created_at: '2026-01-02T03:04:05.678Z',
    updated_at: '2026-01-02T03:04:05.678Z',
    live_viewers: 0,
    like_count: 0,
    comment_count: 0
  })
  hasProblem(t, await app.inject(`/api/v1/videos/${id + 1000}`), 'not_found', { message: `There is no video ${id + 1000}` })
})

onEachStore(t, 'lists are bare arrays, newest first with the id as tie-break, in pages', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const other = await signUp(app)
  const ids: number[] = []
  for (let n = 0; n < 25; n++) {
    ids.push(await addVideo(app, n % 5 === 0 ? other.user.id : user.id, {
      is_live: n % 10 === 0, created_at: new Date(Date.UTC(2026, 0, 1 + Math.floor(n / 2)))
    }))
  }
  const newestFirst = [...ids].reverse()
  const listed = async (url: string): Promise<number[]> => {
    const response = await app.inject(url)
    t.equal(response.statusCode, 200, url)
    return response.json<{ id: number }[]>().map(video => video.id)
  }
  t.strictSame(await listed('/api/v1/videos'), newestFirst.slice(0, 20), '20 by default, live and recorded alike')
  t.strictSame(await listed('/api/v1/videos?limit=100'), newestFirst)
  t.strictSame(await listed('/api/v1/videos?limit=5&offset=10'), newestFirst.slice(10, 15))
  t.strictSame(await listed('/api/v1/videos?offset=1000'), [])
  t.strictSame(await listed('/api/v1/videos?live=true'), newestFirst.filter(id => ids.indexOf(id) % 10 === 0))
  t.strictSame(await listed('/api/v1/videos?live=false&limit=100'), newestFirst.filter(id => ids.indexOf(id) % 10 !== 0))
  t.strictSame(await listed(`/api/v1/users/${other.user.id}/videos`), newestFirst.filter(id => ids.indexOf(id) % 5 === 0))
  t.strictSame(await listed(`/api/v1/users/${user.id}/videos?limit=2&offset=1`), newestFirst.filter(id => ids.indexOf(id) % 5 !== 0).slice(1, 3))
  t.strictSame(await listed('/api/v1/users/999999/videos'), [], 'a user that does not exist has no videos')
  t.strictSame(await listed('/api/v1/videos/?limit=1'), newestFirst.slice(0, 1), 'with a trailing slash, as the Go service took it')
})

onEachStore(t, 'engagement counts what it is told and shows it everywhere', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id, { view_count: 3 })
  const engage = (metric: string) =>
    app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/${metric}`, headers: authorization })

  const like = await engage('likes')
  t.equal(like.statusCode, 200)
  t.strictSame(like.json(), {
    message: 'Engagement recorded',
    data: { live_viewers: 0, like_count: 1, comment_count: 0, view_count: 3 }
  })
  await engage('comments')
  await engage('comments')
  await engage('live_viewers')
  const shown = { live_viewers: 1, like_count: 1, comment_count: 2, view_count: 3 }
  t.match((await app.inject(`/api/v1/videos/${id}`)).json(), shown)
  t.match((await app.inject('/api/v1/videos')).json(), [shown])
  t.match((await app.inject(`/api/v1/users/${user.id}/videos`)).json(), [shown])
})

onEachStore(t, 'engagement, with a wrong id, metric, token or video, is refused and counts nothing', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const engage = (path: string, headers: Record<string, string> = authorization) =>
    app.inject({ method: 'POST', url: `/api/v1/videos/${path}`, headers })
  hasProblem(t, await engage(`${id}/engagement/shares`), 'invalid_metric')
  hasProblem(t, await engage('abc/engagement/likes'), 'invalid_id')
  hasProblem(t, await engage('abc/engagement/shares'), 'invalid_id')
  hasProblem(t, await engage(`${id}/engagement/likes`, {}), 'unauthorized')
  hasProblem(t, await engage(`${id + 1}/engagement/likes`), 'not_found', { message: `There is no video ${id + 1}` })
  const next = await addVideo(app, user.id)
  t.match((await app.inject(`/api/v1/videos/${next}`)).json(), { like_count: 0 }, 'the video that came later has no likes')
})

onEachStore(t, 'engagement, with an empty body of any media type, is counted as clients send it', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  for (const type of ['application/json', 'application/x-www-form-urlencoded', 'text/plain']) {
    const response = await app.inject({
      method: 'POST', url: `/api/v1/videos/${id}/engagement/comments`, headers: { ...authorization, 'content-type': type, 'content-length': '0' }
    })
    t.equal(response.statusCode, 200, type)
  }
  t.match((await app.inject(`/api/v1/videos/${id}`)).json(), { comment_count: 3 })
})
