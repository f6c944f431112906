import { createClient } from '../../client/index.ts'
import { randomUser } from '../helpers/person.ts'

/**
 * Uses the client as an app in React Native does, whose engine has neither streams of responses nor most of a
 * browser. Run by test/client/live.test.ts with the address of a service and a video.
 */
const [, , baseUrl, id] = process.argv
const videoId = Number(id)
const { fetch } = globalThis
// Node's fetch loads parts of itself with its first use, and needs these.
await (await fetch('data:text/plain,ready')).text()
for (
  const name of ['EventSource', 'BroadcastChannel', 'navigator', 'crypto', 'URLSearchParams']
) Object.defineProperty(globalThis, name, { value: undefined })
Object.assign(AbortSignal, { timeout: undefined, any: undefined })
Reflect.deleteProperty(AbortSignal.prototype, 'throwIfAborted')

const items = new Map<string, string>()
const client = createClient({
  baseUrl: baseUrl!,
  storage: {
    getItem: async key => items.get(key) ?? null,
    async setItem (key, value) { items.set(key, value) },
    async removeItem (key) { items.delete(key) }
  },
  async fetch (url, init) {
    const response = await fetch(url, init)
    return { ok: response.ok, status: response.status, headers: response.headers, text: () => response.text() } as never
  }
})
const user = await client.register(randomUser())
if (items.size !== 1 || client.session.user?.id !== user.id) throw new Error('the session was not stored')
const stop = client.watch(videoId, {
  onCounters ({ live_viewers: viewers }) { process.stdout.write(`viewers ${viewers}\n`) }
})
await new Promise<void>(resolve => {
  const unsubscribe = client.subscribe(videoId, ({ like_count: likes }) => {
    process.stdout.write(`following, likes ${likes}\n`)
    if (likes === 0) return
    unsubscribe()
    resolve()
  })
})
stop()
await client.logout()
process.stdout.write('done\n')
