import type { App } from './app.ts'

export interface Tokens {
  token: string
  refresh_token: string
  expires_in: number
  user: { id: number } & Record<string, unknown>
}

/** Requests to /auth, as a client makes them. */
export function createClient (app: App, remoteAddress = '203.0.113.1') {
  const send = (
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    path: string,
    { token, payload, userAgent = 'a test' }: { token?: string | undefined, payload?: object, userAgent?: string } = {}
  ) =>
    app.inject({
      method,
      url: `/api/v1/auth/${path}`,
      remoteAddress,
      headers: { 'user-agent': userAgent, ...token === undefined ? {} : { authorization: `Bearer ${token}` } },
      ...payload ? { payload } : {}
    })
  return {
    send,
    async login (email: string, password: string): Promise<Tokens> {
      const answer = await send('POST', 'login', { payload: { email, password } })
      if (answer.statusCode !== 200) throw new Error(answer.body)
      return answer.json<Tokens>()
    },
    refresh: (refreshToken: string) => send('POST', 'refresh', { payload: { refresh_token: refreshToken } }),
    /** The status of the own profile: 200 for a token that counts. */
    statusOf: async (token: string): Promise<number> => (await send('GET', 'me', { token })).statusCode
  }
}

/** Moves all rotations of refresh tokens into the past, as if seconds had passed. */
export async function passTime (app: App, seconds: number): Promise<void> {
  await app.pg.query(
    `update sessions set refreshed_at = refreshed_at - $1 * interval '1 second',
      recent_rotated_at = array(select at - $1 * interval '1 second' from unnest(recent_rotated_at) with ordinality as r (at, n) order by n)`,
    [seconds]
  )
}
