import { randomBytes } from 'node:crypto'
import type { Fixtures } from './scenarios.ts'
import type { Server } from './world.ts'

/**
 * A service that runs elsewhere: what it has is asked of itself, and a few users are registered there.
 *
 * @throws if it has no videos
 */
export async function fixturesOf (url: string): Promise<{ service: Server, fixtures: Fixtures }> {
  const { protocol, hostname, port } = new URL(url)
  if (protocol !== 'http:') throw new Error('--against takes an http address')
  const base = `${url.replace(/\/$/, '')}/api/v1`
  const videos: number[] = []
  for (let offset = 0; offset < 5000; offset += 100) {
    const answer = await fetch(`${base}/videos?limit=100&offset=${offset}`)
    if (!answer.ok) throw new Error(`${base}/videos answers ${answer.status}: ${await answer.text()}`)
    const found = await answer.json() as { id: number }[]
    videos.push(...found.map(({ id }) => id))
    if (found.length < 100) break
  }
  if (videos.length === 0) throw new Error(`${url} has no videos: fill it first (npm run seed)`)
  const bearers: string[] = []
  for (let n = 0; n < 5; n++) {
    const name = `bench${randomBytes(6).toString('hex')}`
    const answer = await fetch(`${base}/auth/register`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        email: `${name}@bench.example`,
        username: name,
        password: randomBytes(12).toString('hex'),
        display_name: name
      })
    })
    if (!answer.ok) throw new Error(`${base}/auth/register answers ${answer.status}: ${await answer.text()}`)
    bearers.push(`Bearer ${(await answer.json() as { token: string }).token}`)
  }
  return {
    service: { host: hostname, port: Number(port || 80), pids: [], stop: async () => {} },
    fixtures: { videos, bearers: count => Array.from({ length: count }, (_, n) => bearers[n % bearers.length]!) }
  }
}
