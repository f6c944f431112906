import type { AddressInfo } from 'node:net'
import t from 'tap'
import { addVideo, createApp, signUp } from '../helpers/app.ts'
import { onEachStore } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

onEachStore(t, 'a request is under way until it is answered, before Fastify and the usual way', async (t, stores) => {
  const app = await createApp(t, { stores })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const { port } = app.server.address() as AddressInfo
  const like = () => fetch(`http://127.0.0.1:${port}/api/v1/videos/${id}/engagement/likes`, { method: 'POST', headers: authorization })
  // The token and the video are known from here on.
  t.equal((await like()).status, 200)

  const { hotPath: { shortcuts }, counters: { store } } = app
  let taken = 0
  const counting = shortcuts.splice(0).map(shortcut => (...args: Parameters<typeof shortcut>) => {
    const isTaken = shortcut(...args)
    if (isTaken) taken++
    return isTaken
  })
  const { setLike } = store
  const idle = () => until('nothing is under way', () => app.admission.stats.inFlight === 0)
  for (const [way, used] of [['before Fastify', counting], ['the usual way', []]] as const) {
    shortcuts.splice(0, Infinity, ...used)
    await idle()
    taken = 0
    const gate = Promise.withResolvers<void>()
    let asked = 0
    store.setLike = async (...args) => {
      asked++
      await gate.promise
      return await setLike(...args)
    }
    const answers = [like(), like(), like()]
    await until('all three have come to the store', () => asked === 3)
    t.equal(taken, used.length === 0 ? 0 : 3, `the control: they went ${way}`)
    t.equal(app.admission.stats.inFlight, 3, way)
    gate.resolve()
    t.strictSame((await Promise.all(answers)).map(answer => answer.status), [200, 200, 200])
    await idle()
    t.equal(app.admission.stats.inFlight, 0, `${way}, answered`)
  }
})
