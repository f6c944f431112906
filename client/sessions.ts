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

/** Milliseconds after which a storage that does not answer counts as broken. */
const storageMs = 3000

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
  let queue: Promise<unknown> = Promise.resolve()
  const loaded = read()

  /** Another tab has logged in, out, or refreshed. */
  function onStorage (event: { key: string | null, newValue: string | null, storageArea?: unknown }): void {
    if (event.key === key && usable && event.storageArea === usable) set(parse(event.newValue))
  }
  if (storage) environment.addEventListener?.('storage', onStorage)

  /** Changes of the session happen one after the other, in this tab and, with a storage, in all tabs. */
  function alone<T> (work: () => Promise<T>): Promise<T> {
    const turn = queue.then(() => storage ? exclusively(key, work) : work())
    queue = turn.catch(() => {})
    return turn
  }

  async function read (): Promise<void> {
    if (!usable) return
    try {
      set(parse(await answerOf(usable.getItem(key))))
    } catch {
      usable = undefined
    }
  }

  async function write (session: StoredSession | null): Promise<void> {
    set(session)
    try {
      await answerOf(session ? usable?.setItem(key, JSON.stringify(session)) : usable?.removeItem(key))
    } catch {
      // What is stored is older than what is in memory: using it again would end the session.
      usable = undefined
    }
  }

  function set (session: StoredSession | null): void {
    const before = current?.user
    current = session
    if (JSON.stringify(before) !== JSON.stringify(session?.user)) {
      for (const listener of [...listeners]) callback(listener, session?.user ?? null)
    }
  }

  const store = (session: Session): Promise<void> =>
    write({
      token: session.token,
      refresh_token: session.refresh_token,
      expires_at: Date.now() + session.expires_in * 1000,
      user: session.user
    })

  const expiresWithin = (ms: number): boolean => current !== null && current.expires_at - ms < Date.now()

  function refresh (refused: string): Promise<void> {
    refreshing ??= alone(async () => {
      // Another tab may have refreshed meanwhile.
      await read()
      if (!current || (current.token !== refused && !expiresWithin(marginMs))) return
      const { refresh_token: token } = current
      const fresh = await transport.send<Session>({
        method: 'POST',
        path: '/auth/refresh',
        body: { refresh_token: token },
        isRepeatable: true
      }).catch((error: unknown) => error as HaloError)
      // Without Web Locks another tab may have refreshed, logged in or out while this one waited.
      await read()
      if (current?.refresh_token !== token) return
      if (!(fresh instanceof Error)) await store(fresh.data)
      else if (fresh.code === 'invalid_refresh_token' || fresh.code === 'invalid_request') await write(null)
      else throw fresh
    }).finally(() => {
      refreshing = undefined
    })
    return refreshing
  }

  return {
    /** Begins a session. */
    async begin (session: Session): Promise<void> {
      await loaded
      await alone(() => store(session))
    },

    /** The session, with its tokens. */
    get session (): StoredSession | null {
      return current
    },

    /** Forgets the session on this device: at once, because a refresh that is running may take long. */
    end: () => write(null),

    /** Replaces the user who is shown, after a change of the account. */
    async setUser (user: Account): Promise<void> {
      if (JSON.stringify(current?.user) === JSON.stringify(user)) return
      await alone(async () => {
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

    /**
     * Returns an access token for the user who is logged in when it is called, after a refresh if it has expired;
     * undefined for nobody. Without an answer to the refresh it is the old one: public pages work with it.
     */
    async token (): Promise<string | undefined> {
      await loaded
      if (!current || !expiresWithin(marginMs)) return current?.token
      const { user, token } = current
      const refreshed = refresh(token).catch(() => {})
      if (expiresWithin(0)) await refreshed
      return tokenOf(user)
    },

    /** Returns another access token of the same user than the one that was refused; undefined if there is none. */
    async tokenAfter (refused: string, user: Account | null): Promise<string | undefined> {
      if (current?.token === refused) await refresh(refused)
      return user ? tokenOf(user) : undefined
    },

    /** Stops listening to other tabs. */
    close (): void {
      environment.removeEventListener?.('storage', onStorage)
      listeners.clear()
    }
  }

  /** A call that somebody has begun is never sent with the token of somebody else. */
  function tokenOf (user: Account): string | undefined {
    return current?.user.id === user.id ? current.token : undefined
  }
}

/** Waits for a storage, but not for ever. */
async function answerOf<T> (answer: T | Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const silence = new Promise<never>((resolve, reject) => {
    timer = setTimeout(() => { reject(new Error('the storage does not answer')) }, storageMs)
  })
  try {
    return await Promise.race([answer, silence])
  } finally {
    clearTimeout(timer)
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
