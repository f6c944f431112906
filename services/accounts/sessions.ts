import type { Account, SessionInfo } from '../../schemas/user.ts'
import { createSessionId } from './access-tokens.ts'
import type { Database } from '../stores/database.ts'
import type { RefreshClaim } from './refresh-tokens.ts'
import { accountColumns, isActive, toAccount, type AccountRow } from './account-row.ts'

/** A session: the claim of its refresh token, and its expiry. */
export interface Session extends RefreshClaim {
  expiresAt: Date
}

export interface NewSession {
  userId: number
  /** The hash that the password was verified with; no session begins if it was changed meanwhile. */
  passwordHash?: string
  address: string
  userAgent: string
}

/** The row of a new session. */
export interface SessionValues {
  sid: string
  lifetimeSeconds: number
  tokensUntil: number
  address: string
  userAgent: string
}

/** The outcome of a refresh token that was issued by this service. */
export type Refreshed =
  | { kind: 'refreshed', session: Session, account: Account }
  /** Reuse: two parties have tokens of the family. The session has ended. */
  | { kind: 'reused', userId: number }
  /** The session has ended before, or the token is one that another tab has just rotated. */
  | { kind: 'refused' }

/** Grace time in seconds after the rotation of a refresh token (RFC 9700 §4.14.2). */
const graceSeconds = 10

/** Maximum rotations of the grace time that are remembered; a late tab of an earlier one ends the session. */
const maxRecentRotations = 32

/** Characters of a User-Agent that are stored. */
const maxUserAgent = 255

// With the lock on the user, a concurrent password change either comes first, and no session begins, or finds the
// session and ends it.
const insertSession = {
  name: 'insert_session',
  text: `
    with kept as (select id from sessions where user_id = $2 order by last_used_at desc, id limit $6),
      dropped as (delete from sessions where user_id = $2 and id not in (select id from kept))
    insert into sessions (id, user_id, expires_at, tokens_until, address, user_agent)
    select $1, u.id, now() + $3 * interval '1 second', now() + $8 * interval '1 second', $4, $5 from users u
    where u.id = $2 and u.password_hash = coalesce($7, u.password_hash) and ${isActive('u.id')}
    for share
    returning expires_at`
}

// One statement that locks the row: concurrent refreshes of a session, also on different processes, are decided one
// after the other.
const refreshSession = {
  name: 'refresh_session',
  text: `
    with found as materialized (
      select s.id, s.user_id, s.generation, s.generation - 1 - s.superseded as rotated, s.refreshed_at, s.expires_at,
        array(select rotation from unnest(s.recent_rotations, s.recent_rotated_at) as recent (rotation, at)
          where at > now() - $6 * interval '1 second') as recent_rotations
      from sessions s where s.id = $1 and s.expires_at > now()
      for update
    ), decided as (
      select *, case
        when $2 > generation then 'unknown'
        when $2 = generation then 'rotated'
        when $2 = rotated and refreshed_at > now() - $6 * interval '1 second' then 'repeated'
        when $2 = rotated then 'replaced'
        when $2 = any(recent_rotations) then 'late'
        else 'reused' end as outcome
      from found
    ), changed as (
      update sessions s set generation = d.generation + 1, refreshed_at = now(), last_used_at = now(),
        superseded = case d.outcome when 'replaced' then s.superseded + 1 else 0 end,
        (recent_rotations, recent_rotated_at) = (
          select coalesce(array_agg(rotation), '{}'), coalesce(array_agg(at), '{}') from (
            select rotation, at
            from unnest(s.recent_rotations || d.rotated, s.recent_rotated_at || d.refreshed_at) as recent (rotation, at)
            where at > now() - $6 * interval '1 second' order by rotation desc limit $7) as kept),
        address = $3, user_agent = $4, tokens_until = now() + $5 * interval '1 second'
      from decided d where s.id = d.id and d.outcome in ('rotated', 'replaced')
      returning s.generation
    ), ended as (
      delete from sessions s using decided d where s.id = d.id and d.outcome = 'reused'
    )
    select d.outcome, coalesce(c.generation, d.generation) as session_generation, d.expires_at as session_expires_at,
      ${accountColumns('u')}
    from decided d join users u on u.id = d.user_id left join changed c on true`
}

const sessionsOfUser = {
  name: 'sessions_of_user',
  text: `
    select id, created_at, last_used_at, expires_at, address, user_agent from sessions
    where user_id = $1 and expires_at > now()
    order by last_used_at desc, id`
}

const endSession = {
  name: 'end_session',
  text: 'delete from sessions where id = $1 and user_id = $2 returning id'
}

const endSessions = {
  name: 'end_sessions',
  text: `
    with ended as (delete from sessions where user_id = $1 returning id),
      of_go_service as (insert into revocations (user_id, until) values ($1, now() + interval '31 days'))
    select id from ended`
}

// One statement: a new password must not be stored without ending the sessions of the old one.
const changePassword = {
  name: 'change_password',
  text: `
    with changed as (update users set password_hash = $3, updated_at = now() where id = $1 and password_hash = $2 returning id),
      ended as (delete from sessions s using changed where s.user_id = changed.id and s.id <> $4 returning s.id),
      of_go_service as (insert into revocations (user_id, except_session_id, until) select id, $4, now() + interval '31 days' from changed)
    select exists (select from changed) as is_changed, array(select id from ended) as ended`
}

// A token of the Go service has no session row: it is revoked by its own id.
const endToken = {
  name: 'end_token',
  text: 'insert into revocations (session_id, user_id, until) values ($1, $2, to_timestamp($3))'
}

// Never sets the time back; one statement for many sessions.
const noteUse = {
  name: 'note_use_of_sessions',
  text: `
    update sessions s set last_used_at = greatest(s.last_used_at, used.at)
    from unnest($1::text[], $2::timestamptz[]) as used (id, at) where s.id = used.id`
}

interface RefreshRow extends AccountRow {
  session_generation: number
  session_expires_at: Date
  outcome: 'unknown' | 'rotated' | 'repeated' | 'replaced' | 'late' | 'reused'
}

export type SessionService = ReturnType<typeof createSessionService>

export interface SessionOptions {
  /** Seconds after which a session ends. */
  lifetimeSeconds: number
  /** Lifetime of an access token in seconds. */
  tokenSeconds: number
  /** Maximum sessions of a user; a further login ends the least recently used one. */
  maxPerUser: number
}

/** Sessions, in PostgreSQL. */
export function createSessionService (
  database: Database,
  { lifetimeSeconds, tokenSeconds, maxPerUser }: SessionOptions
) {
  // A response that is repeated in the grace time has a token that is valid slightly longer.
  const tokensUntil = tokenSeconds + graceSeconds + 50

  const prepare = ({ address, userAgent }: Pick<NewSession, 'address' | 'userAgent'>): SessionValues => ({
    sid: createSessionId(),
    lifetimeSeconds,
    tokensUntil,
    address,
    userAgent: shorten(userAgent)
  })

  return {
    /** Returns the values of a session that is inserted together with its user. */
    prepare,

    /** Begins a session. Returns undefined when the user or the password hash has changed meanwhile. */
    async create ({ userId, passwordHash, ...client }: NewSession): Promise<Session | undefined> {
      const { sid, address, userAgent } = prepare(client)
      const [row] = await database.query<{ expires_at: Date }>(insertSession, [
        sid,
        userId,
        lifetimeSeconds,
        address,
        userAgent,
        maxPerUser - 1,
        passwordHash ?? null,
        tokensUntil
      ])
      return row && { sid, generation: 0, expiresAt: row.expires_at }
    },

    /**
     * Rotates a session, if the given token is the newest one. A token whose successor was never presented is good at
     * any age, because its response may have been lost: it gets the same successor again within the grace time, and a
     * new one later, which revokes the unused one. A revoked token, and one whose successor was presented, ends the
     * session: two parties have the family (RFC 9700 §4.14.2). Within the grace time of its rotation the latter is
     * only refused, because tabs refresh in turn.
     */
    async refresh (
      { sid, generation }: RefreshClaim,
      { address, userAgent }: Pick<NewSession, 'address' | 'userAgent'>
    ): Promise<Refreshed> {
      const [row] = await database.query<RefreshRow>(refreshSession, [
        sid,
        generation,
        address,
        shorten(userAgent),
        tokensUntil,
        graceSeconds,
        maxRecentRotations
      ])
      // `unknown`: a database that was restored from a backup has a lower rotation number than was issued.
      if (!row || row.outcome === 'unknown' || row.outcome === 'late') return { kind: 'refused' }
      if (row.outcome === 'reused') return { kind: 'reused', userId: row.id }
      return {
        kind: 'refreshed',
        session: { sid, generation: row.session_generation, expiresAt: row.session_expires_at },
        account: toAccount(row)
      }
    },

    async list (userId: number, currentSid: string): Promise<SessionInfo[]> {
      interface Row {
        id: string
        created_at: Date
        last_used_at: Date
        expires_at: Date
        address: string
        user_agent: string
      }
      const rows = await database.query<Row>(sessionsOfUser, [userId])
      return rows.map(row => ({
        id: row.id,
        created_at: row.created_at.toISOString(),
        last_used_at: row.last_used_at.toISOString(),
        expires_at: row.expires_at.toISOString(),
        address: row.address,
        user_agent: row.user_agent,
        is_current: row.id === currentSid
      }))
    },

    /** Ends a session of a user. Returns whether it existed. */
    async end (userId: number, sid: string): Promise<boolean> {
      return (await database.query(endSession, [sid, userId])).length > 0
    },

    /** Ends all sessions of a user, and revokes all tokens of the Go service. Returns the ids of the sessions. */
    async endAll (userId: number): Promise<string[]> {
      return (await database.query<{ id: string }>(endSessions, [userId])).map(row => row.id)
    },

    /**
     * Replaces a password hash, ends all sessions but one, and revokes the tokens of the Go service but that of the
     * same id. Returns the ids of the ended sessions; undefined when the hash was changed meanwhile.
     */
    async changePassword (
      userId: number,
      before: string,
      after: string,
      exceptSid: string
    ): Promise<string[] | undefined> {
      const [row] = await database.query<{ is_changed: boolean, ended: string[] }>(changePassword, [
        userId,
        before,
        after,
        exceptSid
      ])
      return row!.is_changed ? row!.ended : undefined
    },

    /** Revokes a token of the Go service, until it expires (seconds since 1970). */
    async endLegacy (userId: number, sid: string, exp: number): Promise<void> {
      await database.query(endToken, [sid, userId, exp])
    },

    /** Records when sessions were last used. */
    async noteUse (uses: Map<string, Date>): Promise<void> {
      await database.query(noteUse, [[...uses.keys()], [...uses.values()]])
    }
  }
}

/** Truncates a header, and removes what PostgreSQL cannot store. */
const shorten = (text: string): string => text.slice(0, maxUserAgent).toWellFormed().replaceAll('\0', '')
