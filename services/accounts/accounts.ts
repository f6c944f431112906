import { createHmac } from 'node:crypto'
import type { Account, AccountPatch, Credentials, Registration, SessionInfo } from '../../schemas/user.ts'
import type { Claims } from './access-tokens.ts'
import { ApiError } from '../shared/errors.ts'
import { useOf } from '../shared/idempotency.ts'
import type { LoginAttempt, LoginThrottle } from './login-throttle.ts'
import type { PasswordService } from './passwords.ts'
import type { RefreshTokens } from './refresh-tokens.ts'
import type { Revocations } from './revocations.ts'
import type { Session, SessionService } from './sessions.ts'
import { comparisonKey, type AccountWithHash, type UserService } from './users.ts'

/** Events of the audit log. */
export type AuditEvent =
  | 'register'
  | 'login'
  | 'login_failed'
  | 'refresh_reused'
  | 'logout'
  | 'logout_all'
  | 'session_ended'
  | 'password_changed'
  | 'password_change_failed'
  | 'account_deleted'
  | 'account_deletion_failed'

/** The client of a request, and its audit log. */
export interface Client {
  address: string
  userAgent: string
  audit (event: AuditEvent, fields: Record<string, unknown>): void
}

/** A user who is logged in. */
export interface LoggedIn {
  account: Account
  session: Session
}

export interface AccountOptions {
  users: UserService
  passwords: PasswordService
  sessions: SessionService
  attempts: LoginThrottle
  refreshTokens: RefreshTokens
  revocations: Revocations
  /** Called when an account was deleted. */
  onDeleted: (userId: number) => void
  /** Key of the hash under which the email of a failed login is logged. */
  auditKey: string
  /** Called with errors of background work. */
  onError: (error: unknown) => void
}

export type AccountService = ReturnType<typeof createAccountService>

/** Accounts and sessions: registration, login, refresh, logout, changes of the profile and the password, deletion. */
export function createAccountService (
  { users, passwords, sessions, attempts, refreshTokens, revocations, auditKey, onDeleted, onError }: AccountOptions
) {
  /** Keyed, because people type passwords into the email field. */
  const accountHash = (email: string): string =>
    createHmac('sha256', auditKey).update(comparisonKey(email)).digest('base64url').slice(0, 16)

  /**
   * Verifies a password, unless the account or the address has to wait: then the response and its time are those of a
   * wrong password.
   */
  async function isRight (
    password: string,
    found: AccountWithHash | undefined,
    attempt: LoginAttempt
  ): Promise<'right' | 'wrong' | 'waiting'> {
    const mayTry = await attempts.begin(attempt)
    let isEqual: boolean
    try {
      isEqual = await passwords.verify(password, mayTry ? found?.passwordHash : undefined)
    } catch (error) {
      if (mayTry) await attempts.withdraw(attempt)
      throw error
    }
    if (!mayTry) return 'waiting'
    if (isEqual && found) await attempts.succeed(attempt, found.account.id)
    else await attempts.fail(attempt)
    return isEqual ? 'right' : 'wrong'
  }

  async function attemptAt (email: string, userId: number | undefined, address: string): Promise<LoginAttempt> {
    return {
      account: comparisonKey(email),
      address,
      // Also for an account that does not exist: the time must be the same.
      isKnownAddress: await attempts.isKnownAddress(userId ?? 0, address)
    }
  }

  /** Returns the user of a token if the password is right. */
  async function prove (
    userId: number,
    password: string,
    client: Client,
    failure: AuditEvent
  ): Promise<AccountWithHash> {
    passwords.requireRoom()
    const found = await users.credentialsOf(userId)
    if (!found) throw gone()
    const result = await isRight(password, found, await attemptAt(found.account.email, userId, client.address))
    if (result !== 'right') {
      client.audit(failure, { userId, reason: result })
      throw new ApiError('wrong_password')
    }
    return found
  }

  /** Replaces an outdated hash in the background, while its password is known. */
  function upgrade ({ account, passwordHash }: AccountWithHash, password: string): void {
    if (!passwords.isOutdated(passwordHash, password)) return
    passwords.rehash(password)
      .then(hash => users.replaceHash(account.id, passwordHash, hash))
      // The next login will do it.
      .catch(onError)
  }

  return {
    /**
     * Registers a user and begins a session. Repeated with the same Idempotency-Key and the same password, it logs the
     * user in: no password and no token is kept for the key.
     *
     * @throws ApiError `user_exists`; `password_too_common`; `server_busy` when too many passwords wait to be hashed;
     *   `idempotency_key_reused`; `invalid_credentials` for a repetition with another password
     */
    async register (
      registration: Registration,
      client: Client,
      key?: string
    ): Promise<LoggedIn & { isReplay: boolean }> {
      const { email, username, password, ...profile } = registration
      passwords.requireRoom()
      // Outside of any transaction: a hash takes a tenth of a second, in which no connection should be held.
      const passwordHash = await passwords.hash(password, [username, email])
      const created = await users.create({
        email,
        username,
        passwordHash,
        displayName: profile.display_name,
        isAdult: profile.is_adult ?? false
      }, sessions.prepare(client), key === undefined ? undefined : useOf(`register:${email}`, key, [username, profile]))
      if (!created) return { ...await this.login({ email, password }, client), isReplay: true }
      client.audit('register', { userId: created.account.id, sessionId: created.session.sid })
      return { ...created, isReplay: false }
    },

    /**
     * Begins a session.
     *
     * @throws ApiError `invalid_credentials`, with the same time and text for an unknown email, a wrong password and an
     *   account that has to wait; `server_busy`
     */
    async login (credentials: Credentials, client: Client): Promise<LoggedIn> {
      const { email, password } = credentials
      const { address, userAgent } = client
      passwords.requireRoom()
      const found = await users.findByEmail(email)
      const result = await isRight(password, found, await attemptAt(email, found?.account.id, address))
      if (!found || result !== 'right') {
        client.audit('login_failed', {
          userId: found?.account.id,
          account: accountHash(email),
          reason: found || result === 'waiting' ? result : 'unknown'
        })
        throw new ApiError('invalid_credentials')
      }
      const { account, passwordHash } = found
      const session = await sessions.create({ userId: account.id, passwordHash, address, userAgent })
      // The password or its hash was changed during the comparison: repeat it with the new one.
      if (!session) return await this.login(credentials, client)
      client.audit('login', { userId: account.id, sessionId: session.sid })
      upgrade(found, password)
      return { account, session }
    },

    /** Rotates a refresh token. @throws ApiError `invalid_refresh_token`; a reused token also ends its session */
    async refresh (refreshToken: string, client: Client): Promise<LoggedIn> {
      const claim = refreshTokens.decode(refreshToken)
      if (!claim) throw new ApiError('invalid_refresh_token')
      const refreshed = await sessions.refresh(claim, client)
      if (refreshed.kind === 'refreshed') return refreshed
      if (refreshed.kind === 'reused') {
        revocations.add(claim.sid)
        client.audit('refresh_reused', { userId: refreshed.userId, sessionId: claim.sid })
      }
      throw new ApiError('invalid_refresh_token')
    },

    /** Ends the session of a token. */
    async logout ({ user_id: userId, sid, isLegacy, exp }: Claims, client: Client): Promise<void> {
      if (isLegacy) await sessions.endLegacy(userId, sid, exp)
      else await sessions.end(userId, sid)
      revocations.add(sid)
      client.audit('logout', { userId, sessionId: sid })
    },

    /** Ends all sessions of a user. */
    async logoutAll ({ user_id: userId, sid }: Claims, client: Client): Promise<void> {
      for (const ended of [sid, ...await sessions.endAll(userId)]) revocations.add(ended)
      client.audit('logout_all', { userId, sessionId: sid })
    },

    sessions: ({ user_id: userId, sid }: Claims): Promise<SessionInfo[]> => sessions.list(userId, sid),

    /** Ends one session of the user. @throws ApiError `not_found` */
    async endSession ({ user_id: userId }: Claims, sid: string, client: Client): Promise<void> {
      if (!await sessions.end(userId, sid)) {
        throw new ApiError('not_found', { message: 'You have no session with this id' })
      }
      revocations.add(sid)
      client.audit('session_ended', { userId, sessionId: sid })
    },

    /** Returns the profile of a user. @throws ApiError `unauthorized` when the user does not exist any more */
    async profile (userId: number): Promise<Account> {
      return await users.findById(userId) ?? throwGone()
    },

    /**
     * Changes the profile of a user.
     *
     * @throws ApiError `not_an_adult`; `unauthorized` when the user does not exist any more
     */
    async update (userId: number, patch: AccountPatch): Promise<Account> {
      return await users.update(userId, patch) ?? throwGone()
    },

    /**
     * Changes the password and ends all other sessions.
     *
     * @throws ApiError `wrong_password`; `password_too_common`; `server_busy`
     */
    async changePassword (
      { user_id: userId, sid }: Claims,
      current: string,
      next: string,
      client: Client
    ): Promise<void> {
      const { account, passwordHash } = await prove(userId, current, client, 'password_change_failed')
      const hash = await passwords.hash(next, [account.username, account.email])
      const ended = await sessions.changePassword(userId, passwordHash, hash, sid)
      // Another request changed it at the same moment: then it is not the present one any more.
      if (!ended) throw new ApiError('wrong_password')
      for (const one of ended) revocations.add(one)
      client.audit('password_changed', { userId, sessionId: sid })
    },

    /**
     * Deletes an account: from now on it, its videos and its likes are invisible.
     *
     * @throws ApiError `wrong_password`; `server_busy`
     */
    async remove ({ user_id: userId, sid }: Claims, password: string, client: Client): Promise<void> {
      const { passwordHash } = await prove(userId, password, client, 'account_deletion_failed')
      const ended = await users.remove(userId, passwordHash)
      // Another request changed the password or deleted the account at the same moment: nothing was changed.
      if (!ended) throw new ApiError('wrong_password')
      for (const one of [sid, ...ended]) revocations.add(one)
      onDeleted(userId)
      client.audit('account_deleted', { userId, sessionId: sid })
    }
  }
}

const gone = (): ApiError => new ApiError('unauthorized', { message: 'The user of this token no longer exists' })

const throwGone = (): never => {
  throw gone()
}
