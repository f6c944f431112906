import t from 'tap'
import { addVideo, createApp, signUp } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { onEachStore } from '../helpers/stores.ts'

onEachStore(t, 'a video, read by its id, has every member of the contract and no other', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const at = new Date('2026-01-02T03:04:05.678Z')
  const id = await addVideo(app, user.id, {
    title: 'Évening 🌅 "quoted" \\ ',
    description: 'two\nlines',
    stream_url: 'https://stream.example/1',
    is_live: true,
    view_count: 7,
    created_at: at,
    updated_at: at
  })
  const response = await app.inject(`/api/v1/videos/${id}`)
  t.equal(response.statusCode, 200)
  const body = response.json<{ counters: { as_of: string } }>()
  t.strictSame(body, {
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
    comment_count: 0,
    counters: { stale: false, as_of: body.counters.as_of }
  })
  t.match(body.counters.as_of, /^\d{4}-\d\d-\d\dT[\d:.]{12}Z$/)
  hasProblem(t, await app.inject(`/api/v1/videos/${id + 1000}`), 'not_found', {
    message: `There is no video ${id + 1000}`
  })
})

onEachStore(t, 'lists are bare arrays, newest first with the id as tie-break, in pages', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const other = await signUp(app)
  const ids: number[] = []
  for (let n = 0; n < 25; n++) {
    ids.push(
      await addVideo(app, n % 5 === 0 ? other.user.id : user.id, {
        is_live: n % 10 === 0,
        created_at: new Date(Date.UTC(2026, 0, 1 + Math.floor(n / 2)))
      })
    )
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
  t.strictSame(
    await listed('/api/v1/videos?live=false&limit=100'),
    newestFirst.filter(id => ids.indexOf(id) % 10 !== 0)
  )
  t.strictSame(
    await listed(`/api/v1/users/${other.user.id}/videos`),
    newestFirst.filter(id => ids.indexOf(id) % 5 === 0)
  )
  t.strictSame(
    await listed(`/api/v1/users/${user.id}/videos?limit=2&offset=1`),
    newestFirst.filter(id => ids.indexOf(id) % 5 !== 0).slice(1, 3)
  )
  t.strictSame(await listed('/api/v1/users/999999/videos'), [], 'a user that does not exist has no videos')
  t.strictSame(
    await listed('/api/v1/videos/?limit=1'),
    newestFirst.slice(0, 1),
    'with a trailing slash, as the Go service took it'
  )
})
