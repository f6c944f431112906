import t from 'tap'
import { createApp, signUp } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'

t.test('the body of an error names the path and nothing of the query, whichever way it comes', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { authorization } = await signUp(app)
  for (
    const [path, query, status, method] of [
      ['/api/v1/videos', 'limit=0&token=very-secret', 400, 'GET'],
      ['/api/v1/videos/999999', 'token=very-secret', 400, 'GET'],
      ['/nothing', 'token=very-secret', 404, 'GET'],
      ['/api/v1/auth/me', 'token=very-secret', 401, 'GET'],
      ['/api/v1/videos', 'token=very-secret', 405, 'DELETE']
    ] as const
  ) {
    const answer = await app.inject({ method, url: `${path}?${query}`, headers: status === 401 ? {} : authorization })
    t.match(answer.json(), { status, instance: new RegExp(`^${path}$`) }, `${method} ${path}`)
    t.notMatch(answer.body, /very-secret/)
  }
})
