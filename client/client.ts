import { randomId } from './environment.ts'
import { HaloError } from './errors.ts'
import { createHeartbeats, type WatchOptions } from './heartbeats.ts'
import { createLiveCounters, type LiveCounters, type SubscribeOptions } from './live-counters.ts'
import type { components } from './schema.ts'
import { createSessions, type TokenStorage } from './sessions.ts'
import { createTransport, unexpected, type Answer, type Call, type TransportOptions } from './transport.ts'

type Schemas = components['schemas']

export interface ClientOptions extends TransportOptions {
  /** Where tokens are kept, such as `localStorage` or AsyncStorage; without it, in memory. */
  storage?: TokenStorage
  /** Name of this tab or device among those of its user (a random one). */
  clientId?: string
  /** Milliseconds between two polls of counters that no stream brings (2,000). */
  pollMs?: number
}

/** What a list can be narrowed to. */
export interface VideoFilter {
  /** Videos of this user only. */
  userId?: number
  live?: boolean
  adult?: 'include' | 'exclude' | 'only'
  /** Videos a page, 1 to 100 (20). */
  limit?: number
}

export interface VideoPage {
  videos: Schemas['Video'][]
  /** The `cursor` of the next page; undefined after the last one. */
  nextCursor: string | undefined
}

/** Options of a call that creates something. */
export interface CreateOptions {
  /** The same key for the same creation, also after a restart of the app: it happens once. A random one if left out. */
  idempotencyKey?: string
}

export type HaloClient = ReturnType<typeof createClient>

/**
 * Makes a client of the HALO API. Every function that calls the service rejects with HaloError when the call fails; a
 * call that is safe to repeat has been repeated before.
 */
export function createClient (options: ClientOptions) {
  const transport = createTransport(options)
  const sessions = createSessions(transport, options.storage)
  const clientId = options.clientId ?? randomId()

  /** Sends a call with the token of the user who is logged in, and once more with a new one if it is refused. */
  async function send<T> (call: Call): Promise<Answer<T>> {
    await sessions.ready()
    const { user } = sessions
    const token = await sessions.token()
    if (user && sessions.user && sessions.user.id !== user.id) {
      throw new HaloError({ code: 'unauthorized', status: 401, message: 'Another user has logged in meanwhile' })
    }
    if (token === undefined) return await transport.send<T>(call)
    try {
      return await transport.send<T>({ ...call, token })
    } catch (error) {
      if (!(error instanceof HaloError) || error.code !== 'unauthorized') throw error
      const fresh = await sessions.tokenAfter(token, user)
      if (fresh === undefined) throw error
      return await transport.send<T>({ ...call, token: fresh })
    }
  }
  const call = async <T>(call: Call): Promise<T> => (await send<T>(call)).data

  const create = <T>(path: string, { idempotencyKey = randomId() }: CreateOptions, body?: unknown): Promise<T> =>
    call<T>({
      method: 'POST',
      path,
      headers: { 'idempotency-key': idempotencyKey },
      isRepeatable: true,
      ...body === undefined ? {} : { body }
    })

  async function begin (session: Schemas['Session']): Promise<Schemas['Account']> {
    await sessions.begin(session)
    return session.user
  }

  async function setUser (user: Schemas['Account']): Promise<Schemas['Account']> {
    await sessions.setUser(user)
    return user
  }

  /** Forgets the session here at once, and then tells the service, which may be out of reach. */
  async function endSession (path: string): Promise<void> {
    await sessions.ready()
    const { session } = sessions
    if (!session) return
    const leaving = heartbeats.leaveAll(session.token)
    await sessions.end()
    const end = (token: string): Promise<unknown> => transport.send({ method: 'POST', path, token, isRepeatable: true })
    await leaving
    try {
      await end(session.token)
    } catch (error) {
      if (!(error instanceof HaloError) || error.code !== 'unauthorized') throw error
      // Only its access token has expired, or it has ended already.
      const body = { refresh_token: session.refresh_token }
      const fresh = await transport.send<Schemas['Session']>({ method: 'POST', path: '/auth/refresh', body })
        .catch(() => undefined)
      if (fresh) await end(fresh.data.token)
    }
  }

  const engagement = async (videoId: number, metric: string, rest: Partial<Call>): Promise<Schemas['Counters']> =>
    (await call<Schemas['Engagement']>({
      method: 'POST',
      path: `/videos/${videoId}/engagement/${metric}`,
      isRepeatable: true,
      ...rest
    })).data

  // Not repeated: the next heartbeat comes soon, and a late one would undo a departure.
  const presence = { headers: { 'x-client-id': clientId }, retryForMs: 0 }
  const heartbeats = createHeartbeats({
    beat: (videoId, signal) => engagement(videoId, 'live_viewers', { ...presence, signal }),
    leave: (videoId, token) => {
      const path = `/videos/${videoId}/engagement/live_viewers`
      const departure: Call = { ...presence, method: 'DELETE', path, keepalive: true }
      return token === undefined ? call(departure) : transport.send({ ...departure, token })
    }
  })

  /** Counters of videos, in the order of the ids; those that do not exist are left out. */
  async function countersOf (videoIds: number[], rest: Partial<Call> = {}): Promise<Schemas['CountersOfVideo'][]> {
    const pages = []
    for (let start = 0; start < videoIds.length; start += 100) {
      const ids = videoIds.slice(start, start + 100)
      pages.push(send<Schemas['CountersOfVideo'][]>({ path: '/videos/engagement', query: { ids }, ...rest }))
    }
    return (await Promise.all(pages)).flatMap(arrayOf)
  }
  const liveCounters = createLiveCounters({
    transport,
    token: sessions.token,
    countersOf,
    ...options.pollMs === undefined ? {} : { pollMs: options.pollMs }
  })

  async function list (
    { userId, live, adult, limit }: VideoFilter = {},
    { cursor, signal }: { cursor?: string, signal?: AbortSignal } = {}
  ): Promise<VideoPage> {
    const answer = await send<Schemas['Video'][]>({
      path: userId === undefined ? '/videos' : `/users/${userId}/videos`,
      query: { limit, live, adult, cursor },
      ...signal ? { signal } : {}
    })
    return { videos: arrayOf(answer), nextCursor: answer.headers.get('x-next-cursor') ?? undefined }
  }

  let userId = sessions.user?.id
  sessions.onChange(user => {
    if (user?.id === userId) return
    userId = user?.id
    // Streams and heartbeats belong to somebody: they begin again with the token of the next one.
    liveCounters.restart()
    if (user) heartbeats.beatNow()
    else heartbeats.haltAll()
  })

  return {
    /** Name of this tab or device in X-Client-Id. */
    clientId,

    /** The user who is logged in: `user`, `ready()`, `onChange(listener)`. */
    session: {
      get user () { return sessions.user },
      ready: sessions.ready,
      onChange: sessions.onChange
    },

    /** Registers a user, who is then logged in. */
    register: (registration: Schemas['Registration'], options: CreateOptions = {}) =>
      create<Schemas['Session']>('/auth/register', options, registration).then(begin),
    login: (credentials: Schemas['Credentials']) =>
      transport.send<Schemas['Session']>({ method: 'POST', path: '/auth/login', body: credentials })
        .then(({ data }) => begin(data)),
    /** Ends the session: here in any case, and at the service unless the call rejects. */
    logout: () => endSession('/auth/logout'),
    /** Ends all sessions of the user, on every device. */
    logoutAll: () => endSession('/auth/logout-all'),

    account: {
      get: () => call<Schemas['Account']>({ path: '/auth/me' }).then(setUser),
      update: (patch: Schemas['AccountPatch']) =>
        call<Schemas['Account']>({ method: 'PATCH', path: '/auth/me', body: patch, isRepeatable: true }).then(setUser),
      changePassword: (change: Schemas['PasswordChange']) =>
        call<void>({ method: 'POST', path: '/auth/password', body: change }),
      sessions: () => call<Schemas['SessionInfo'][]>({ path: '/auth/sessions' }),
      endSession: (id: string) => call<void>({ method: 'DELETE', path: `/auth/sessions/${encodeURIComponent(id)}` }),
      /** Deletes the account with everything in it; needs the password. */
      async delete (password: string): Promise<void> {
        const { user } = sessions
        await call<void>({ method: 'DELETE', path: '/auth/me', body: { password } })
        if (sessions.user?.id === user?.id) await sessions.end()
      }
    },

    users: {
      get: (id: number) => call<Schemas['Profile']>({ path: `/users/${id}` })
    },

    videos: {
      /** One page, newest first. */
      list,
      /** All videos, newest first: pages are read as they are needed. */
      async * all (filter: VideoFilter = {}, { signal }: { signal?: AbortSignal } = {}): AsyncGenerator<Schemas['Video']> {
        let cursor: string | undefined
        do {
          const page = await list(filter, { ...cursor === undefined ? {} : { cursor }, ...signal ? { signal } : {} })
          yield * page.videos
          cursor = page.nextCursor
        } while (cursor !== undefined)
      },
      get: (id: number) => call<Schemas['Video']>({ path: `/videos/${id}` }),
      /** Publishes a video, or goes live (`is_live`). */
      publish: (video: Schemas['NewVideo'], options: CreateOptions = {}) =>
        create<Schemas['Video']>('/videos', options, video),
      update: (id: number, patch: Schemas['VideoPatch']) =>
        call<Schemas['Video']>({ method: 'PATCH', path: `/videos/${id}`, body: patch, isRepeatable: true }),
      delete: (id: number) => call<void>({ method: 'DELETE', path: `/videos/${id}` })
    },

    like: (videoId: number) => engagement(videoId, 'likes', {}),
    unlike: (videoId: number) => engagement(videoId, 'likes', { method: 'DELETE' }),
    /** Counts one comment. */
    comment: async (videoId: number, options: CreateOptions = {}) =>
      (await create<Schemas['Engagement']>(`/videos/${videoId}/engagement/comments`, options)).data,

    /** The counters of one video; with a user, `liked` too. */
    counters: (videoId: number) => call<Schemas['Counters']>({ path: `/videos/${videoId}/engagement` }),
    countersOf: (videoIds: number[]) => countersOf(videoIds),

    /** Watches a video: sends heartbeats until the returned function is called. */
    watch: (videoId: number, options: WatchOptions = {}) => heartbeats.watch(videoId, options),

    /** Follows the counters of a video until the returned function is called. */
    subscribe: (videoId: number, onCounters: (counters: LiveCounters) => void, options: SubscribeOptions = {}) =>
      liveCounters.subscribe(videoId, onCounters, options),

    /** Ends all subscriptions and heartbeats, and listens to other tabs no more. */
    close (): void {
      liveCounters.close()
      heartbeats.close()
      sessions.close()
    }
  }
}

function arrayOf<T> ({ data, headers }: Answer<T[]>): T[] {
  if (Array.isArray(data)) return data
  throw unexpected({ status: 200, headers })
}
