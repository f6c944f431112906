import { callback, environment, exclusively } from './environment.ts'
import { HaloError } from './errors.ts'
import type { components } from './schema.ts'
import type { Transport } from './transport.ts'

type Account = components['schemas']['Account']
type Session = components['schemas']['Session']

/** Where tokens are kept: `localStorage`, React Native's AsyncStorage, or anything with these functions. */
export interface TokenStorage {
  getItem (key: string): string | null | Promise<string | null>
  setItem (key: string, value: string): unknown
  removeItem (key: string): unknown
}

export interface StoredSession {
  token: string
  refresh_token: string
  /** Local time in milliseconds: only ever compared with the clock that it was made with. */
  expires_at: number
  user: Account
}

/** Milliseconds before its end at which an access token is replaced. */
const marginMs = 30_000

export type Sessions = ReturnType<typeof createSessions>

/**
 * The tokens of the user who is logged in. A refresh is done once for all calls that wait for it, and by one tab at a
 * time where the browser has Web Locks. Storage that fails is not used any more: the session goes on in memory.
 */
export function createSessions (transport: Transport, storage: TokenStorage | undefined) {
  const key = `halo:session:${transport.base}`
  const listeners = new Set<(user: Account | null) => void>()
  let current: StoredSession | null = null
  let usable = storage
  let refreshing: Promise<void> | undefined
  const loaded = read()

  // Another tab has logged in, out, or refreshed.
  environment.addEventListener?.('storage', (event: { key: string | null, newValue: string | null }) => {
    if (event.key === key) set(parse(event.newValue))
  })

  async function read (): Promise<void> {
    if (!usable) return
    try {
      set(parse(await usable.getItem(key)))
    } catch {
      usable = undefined
    }
  }

  async function write (session: StoredSession | null): Promise<void> {
    set(session)
    try {
      if (session) await usable?.setItem(key, JSON.stringify(session))
      else await usable?.removeItem(key)
    } catch {
      // What is stored is older than what is in memory: using it again would end the session.
      usable = undefined
    }
  }

  function set (session: StoredSession | null): void {
    const before = current?.user
    current = session
    if (JSON.stringify(before) !== JSON.stringify(session?.user)) {
      for (const listener of listeners) callback(listener, session?.user ?? null)
    }
  }

  const store = (session: Session): Promise<void> =>
    write({
      token: session.token,
      refresh_token: session.refresh_token,
      expires_at: Date.now() + session.expires_in * 1000,
      user: session.user
    })

  const hasExpired = (): boolean => current !== null && current.expires_at - marginMs < Date.now()

  function refresh (refused: string): Promise<void> {
    refreshing ??= exclusively(key, async () => {
      // Another tab may have refreshed meanwhile.
      await read()
      if (!current || (current.token !== refused && !hasExpired())) return
      const { refresh_token: token } = current
      try {
        const { data } = await transport.send<Session>({
          method: 'POST',
          path: '/auth/refresh',
          body: { refresh_token: token },
          isRepeatable: true
        })
        await store(data)
      } catch (error) {
        if (!(error instanceof HaloError) || error.status !== 401) throw error
        // Without Web Locks another tab may have been first.
        await read()
        if (current?.refresh_token === token) await write(null)
      }
    }).finally(() => {
      refreshing = undefined
    })
    return refreshing
  }

  return {
    /** Begins a session. While another tab refreshes, it waits: that one would store the tokens of the old session. */
    begin: (session: Session) => exclusively(key, () => store(session)),

    /** Forgets the session on this device. */
    end: () => exclusively(key, () => write(null)),

    /** Replaces the user who is shown, after a change of the account. */
    async setUser (user: Account): Promise<void> {
      if (JSON.stringify(current?.user) === JSON.stringify(user)) return
      await exclusively(key, async () => {
        // Another tab may have newer tokens than this one.
        await read()
        if (current?.user.id === user.id) await write({ ...current, user })
      })
    },

    /** The user who is logged in; null for nobody, and before the storage was read. */
    get user (): Account | null {
      return current?.user ?? null
    },

    /** Resolves to the user when the storage has been read. */
    async ready (): Promise<Account | null> {
      await loaded
      return current?.user ?? null
    },

    /** Calls a listener at each login, logout and change of the account. @returns a function that removes it */
    onChange (listener: (user: Account | null) => void): () => void {
      listeners.add(listener)
      return () => { listeners.delete(listener) }
    },

    /** Returns an access token that has not expired, after a refresh if need be; undefined for nobody. */
    async token (): Promise<string | undefined> {
      await loaded
      if (hasExpired()) await refresh(current!.token)
      return current?.token
    },

    /** Returns another access token than the one that was refused; undefined when the session has ended. */
    async tokenAfter (refused: string): Promise<string | undefined> {
      if (current?.token === refused) await refresh(refused)
      return current?.token
    }
  }
}

function parse (text: string | null): StoredSession | null {
  try {
    const session = JSON.parse(text ?? 'null')
    return typeof session?.refresh_token === 'string' && session.user ? session : null
  } catch {
    return null
  }
}
