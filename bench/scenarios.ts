import { demoLogin, seedUser } from '../db/seed-data.ts'
import type { Kind } from './load.ts'

/** What a service has that is asked for. */
export interface Fixtures {
  /** Videos that everybody may see. */
  videos: number[]
  /** Values of Authorization, each another one, or as many as there are. */
  bearers: (count: number) => string[]
}

/** The limit that a scenario is measured against (bench/bare-server.ts). */
export type LimitName = 'video' | 'list' | 'video-query' | 'list-query' | 'incr'

export interface Scenario {
  name: string
  title: string
  limit?: LimitName
  /** A row for scale, and not of the service: which of the limits it is. */
  isLimit?: boolean
  connections?: number
  addresses?: number
  seconds?: number
  /** Whether latencies are measured at parts of its capacity. */
  hasLatency?: boolean
  isQuick?: boolean
  /** Whether it needs what only a service of the bench's own has. */
  isLocal?: boolean
  /** Called for each run, so that bodies that must be unique are. */
  kinds: (fixtures: Fixtures) => Kind[]
}

const api = '/api/v1'
const page = { origin: 'https://app.example' }
const some = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)]!
const times = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n))

const get = (name: string, paths: string[], more: Partial<Kind> = {}): Kind => ({
  name,
  weight: 1,
  method: 'GET',
  paths,
  headers: page,
  expect: [200],
  ...more
})

const hotVideo = ({ videos }: Fixtures): string => `${api}/videos/${videos[0]}`

/** Another stretch of ids each time, so that hardly one is asked for twice within the second for which it is kept. */
const coldVideos = ({ videos }: Fixtures): string[] => times(30_000, () => `${api}/videos/${some(videos)}`)

/** Prime lengths: each user meets each video. */
function engage (
  name: string,
  method: Kind['method'],
  metric: string,
  { videos, bearers }: Fixtures,
  weight = 1
): Kind {
  const hot = videos.slice(0, 1000)
  return {
    name,
    weight,
    method,
    paths: times(9973, () => `${api}/videos/${some(hot)}/engagement/${metric}`),
    headers: page,
    bearers: bearers(499),
    expect: [200]
  }
}

let registered = Date.now()

export const scenarios: Scenario[] = [
  {
    name: 'fastify',
    title: 'bare Fastify, one route',
    limit: 'video',
    isLimit: true,
    kinds: () => [get('fastify', ['/'])]
  },
  {
    name: 'hot-video',
    title: 'hot video',
    limit: 'video',
    hasLatency: true,
    isQuick: true,
    kinds: fixtures => [get('hot video', [hotVideo(fixtures)])]
  },
  {
    name: 'not-modified',
    title: 'hot video, 304',
    limit: 'video',
    kinds: fixtures => [get('304', [hotVideo(fixtures)], { headers: { ...page, 'if-none-match': '*' }, expect: [304] })]
  },
  {
    name: 'signed-in',
    title: 'hot video, with a token seen before',
    limit: 'video',
    kinds: fixtures => [get('signed in', [hotVideo(fixtures)], { bearers: fixtures.bearers(499) })]
  },
  {
    name: 'new-token',
    title: 'hot video, each token new',
    limit: 'video',
    kinds: fixtures => [get('new token', [hotVideo(fixtures)], { bearers: fixtures.bearers(40_000) })]
  },
  {
    name: 'hot-list',
    title: 'hot list of 20',
    limit: 'list',
    hasLatency: true,
    kinds: () => [get('hot list', [`${api}/videos?limit=20`])]
  },
  {
    name: 'cold-video',
    title: 'cold video, one query',
    limit: 'video-query',
    hasLatency: true,
    kinds: fixtures => [get('cold video', coldVideos(fixtures))]
  },
  {
    name: 'cold-list',
    title: 'cold list of 20',
    limit: 'list-query',
    connections: 16,
    kinds: () => [
      get('cold list', times(10_000, () => `${api}/videos?limit=20&offset=${Math.floor(Math.random() * 10_000)}`))
    ]
  },
  {
    name: 'like',
    title: 'like or unlike, 1,000 videos',
    limit: 'incr',
    hasLatency: true,
    kinds: fixtures => [engage('like', 'POST', 'likes', fixtures), engage('unlike', 'DELETE', 'likes', fixtures)]
  },
  {
    name: 'heartbeat',
    title: 'heartbeat, 1,000 videos',
    limit: 'incr',
    kinds: fixtures => [engage('heartbeat', 'POST', 'live_viewers', fixtures)]
  },
  {
    name: 'mix',
    title: 'mix: 70 % hot, 15 % lists, 10 % engagement, 5 % cold',
    limit: 'video',
    hasLatency: true,
    isQuick: true,
    kinds: fixtures => [
      get('hot video', fixtures.videos.slice(0, 100).map(id => `${api}/videos/${id}`), { weight: 70 }),
      get('list', times(5, n => `${api}/videos?limit=20&offset=${n * 20}`), { weight: 15 }),
      engage('like', 'POST', 'likes', fixtures, 4),
      engage('heartbeat', 'POST', 'live_viewers', fixtures, 4),
      engage('comment', 'POST', 'comments', fixtures, 2),
      get('cold video', coldVideos(fixtures), { weight: 5 })
    ]
  },
  { name: 'not-found', title: '404 flood', kinds: () => [get('404', ['/nothing/here'], { expect: [404] })] },
  {
    name: 'unauthorized',
    title: '401 flood',
    kinds: fixtures => [{
      name: '401',
      weight: 1,
      method: 'POST',
      paths: [`${hotVideo(fixtures)}/engagement/likes`],
      headers: page,
      expect: [401]
    }]
  },
  {
    name: 'limited',
    title: '429 flood, one address',
    addresses: 1,
    kinds: fixtures => [get('429', [hotVideo(fixtures)], { expect: [200, 429] })]
  },
  {
    name: 'login',
    title: 'login (bcrypt, cost 10)',
    // Those of a round that are cut off at its end wait for a thread before the next one's.
    connections: 2,
    isLocal: true,
    kinds: () => [{
      name: 'login',
      weight: 1,
      method: 'POST',
      paths: [`${api}/auth/login`],
      headers: page,
      expect: [200],
      bodies: times(1000, n => JSON.stringify({ email: seedUser(n + 1, 0).email, password: demoLogin.password }))
    }]
  },
  {
    name: 'register',
    title: 'register (bcrypt, cost 10)',
    connections: 4,
    isLocal: true,
    kinds: () => [{
      name: 'register',
      weight: 1,
      method: 'POST',
      paths: [`${api}/auth/register`],
      headers: page,
      expect: [201],
      bodies: times(1000, () => {
        const name = `bench${(registered++).toString(36)}`
        return JSON.stringify({
          email: `${name}@bench.example`,
          username: name,
          password: demoLogin.password,
          display_name: name
        })
      })
    }]
  }
]
