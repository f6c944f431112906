import type { Account, AccountPatch, Profile } from '../../schemas/user.ts'
import { accountColumns, isActive, toAccount, type AccountRow } from './account-row.ts'
import { isUserTaken } from '../stores/constraints.ts'
import { createOnce } from '../stores/creation-receipts.ts'
import type { Database } from '../stores/database.ts'
import type { Session, SessionValues } from './sessions.ts'
import { withoutJoiners } from './usernames.ts'
import { ApiError } from '../shared/errors.ts'
import type { IdempotentUse } from '../shared/idempotency.ts'
import { serializeUrl } from '../http/urls.ts'

export interface NewUser {
  email: string
  username: string
  passwordHash: string
  displayName: string
  isAdult: boolean
}

const columns = accountColumns('users')

export interface AccountWithHash {
  account: Account
  passwordHash: string
}

// One statement: a user must not be inserted without the session of the response.
const insertUser = {
  name: 'insert_user',
  text: `
    with added as (
      insert into users (email, username, email_key, username_key, password_hash, display_name, is_adult)
      values ($1, $2, $3, $4, $5, $6, $7)
      returning ${columns}
    ), session as (
      insert into sessions (id, user_id, expires_at, tokens_until, address, user_agent)
      select $8, id, now() + $9 * interval '1 second', now() + $10 * interval '1 second', $11, $12 from added
      returning expires_at
    ), receipt as (
      insert into creation_receipts (use, fingerprint, created_id)
      select $13::text, $14::text, id from added where $13::text is not null
    )
    select added.*, session.expires_at as session_expires_at from added, session`
}

const userById = {
  name: 'user_by_id',
  text: `select ${columns} from users where id = $1 and ${isActive('users.id')}`
}

const profileById = {
  name: 'profile_by_id',
  text: `select id, username, display_name, bio, avatar_url, created_at from users where id = $1 and ${
    isActive('users.id')
  }`
}

const credentialsById = {
  name: 'credentials_by_id',
  text: `select ${columns}, password_hash from users where id = $1 and ${isActive('users.id')}`
}

// A column that is not given keeps its value. A user who is not an adult cannot be in adult mode.
const updateUser = {
  name: 'update_user',
  text: `
    update users set
      display_name = coalesce($2, display_name), bio = coalesce($3, bio), avatar_url = coalesce($4, avatar_url),
      is_adult = coalesce($5, is_adult), adult_mode = coalesce($6, adult_mode) and coalesce($5, is_adult), updated_at = now()
    where id = $1 and (coalesce($5, is_adult) or not coalesce($6, false)) and ${isActive('users.id')}
    returning ${columns}`
}

// Only if the hash is the one that was compared: of two concurrent changes the first one wins.
const replaceHash = {
  name: 'replace_password_hash',
  text: 'update users set password_hash = $3 where id = $1 and password_hash = $2 returning id'
}

// One statement decides: of a deletion and a concurrent password change only one happens. Email and username become
// values that cannot be registered (they begin with a space), so that both are free; the hash becomes one that no
// password has, also for a Go service on the same database. The rows are removed later (account-purge.ts).
const deleteUser = {
  name: 'delete_user',
  text: `
    with gone as (
      update users set email = ' ' || id, email_key = ' ' || id, username = ' ' || id, username_key = ' ' || id, password_hash = '-',
        display_name = '', bio = '', avatar_url = '', updated_at = now()
      where id = $1 and password_hash = $2 and ${isActive('users.id')}
      returning id
    ), hidden as (
      insert into deleted_users (user_id) select id from gone returning user_id
    ), ended as (
      delete from sessions where user_id in (select id from gone) returning id
    ), of_go_service as (
      insert into revocations (user_id, until) select id, now() + interval '31 days' from gone
    )
    select exists (select from hidden) as is_deleted, array(select id from ended) as ended`
}

// Rows of the Go service may have emails that differ in letter case only; then the exact email decides.
const userByEmail = {
  name: 'user_by_email',
  text: `
    select ${columns}, password_hash from users
    where (email_key = $2 or email = $1) and ${isActive('users.id')}
    order by email = $1 desc
    limit 1`
}

/**
 * Returns the form in which emails and usernames are compared: normalised (NFKC), case-folded (ß is ss, a final ς is
 * σ) and without joiners.
 */
export const comparisonKey = (text: string): string =>
  withoutJoiners(text).normalize('NFKC').toUpperCase().toLowerCase().replaceAll('ς', 'σ').normalize('NFKC')

export type UserService = ReturnType<typeof createUserService>

export function createUserService (database: Database) {
  async function insert (user: NewUser, session: SessionValues, once: IdempotentUse | undefined) {
    const [row] = await database.query<AccountRow & { session_expires_at: Date }>(insertUser, [
      user.email,
      user.username,
      comparisonKey(user.email),
      comparisonKey(user.username),
      user.passwordHash,
      user.displayName,
      user.isAdult,
      session.sid,
      session.lifetimeSeconds,
      session.tokensUntil,
      session.address,
      session.userAgent,
      once?.use,
      once?.fingerprint
    ])
    return {
      account: toAccount(row!),
      session: { sid: session.sid, generation: 0, expiresAt: row!.session_expires_at }
    }
  }

  return {
    /**
     * Inserts a user with their first session; with an Idempotency-Key once, however often it is called.
     *
     * @returns undefined when the key was used before
     * @throws ApiError `user_exists` when the email or the username is taken in any letter case;
     *   `idempotency_key_reused`
     */
    async create (
      user: NewUser,
      session: SessionValues,
      once?: IdempotentUse
    ): Promise<{ account: Account, session: Session } | undefined> {
      try {
        const result = await createOnce(database, once, () => insert(user, session, once))
        return 'created' in result ? result.created : undefined
      } catch (error) {
        throw isUserTaken(error) ? new ApiError('user_exists', { cause: error }) : error
      }
    },

    /**
     * Changes the given members. Returns undefined when the user does not exist any more.
     *
     * @throws ApiError `not_an_adult`
     */
    async update (id: number, patch: AccountPatch): Promise<Account | undefined> {
      const [row] = await database.query<AccountRow>(updateUser, [
        id,
        patch.display_name,
        patch.bio,
        patch.avatar_url === undefined ? undefined : serializeUrl(patch.avatar_url),
        patch.is_adult,
        patch.adult_mode
      ])
      if (row) return toAccount(row)
      if (await this.findById(id)) throw new ApiError('not_an_adult')
      return undefined
    },

    /** Replaces a hash, if it is still the one that was compared. */
    async replaceHash (id: number, before: string, after: string): Promise<boolean> {
      return (await database.query(replaceHash, [id, before, after])).length > 0
    },

    /**
     * Makes an account invisible, if its hash is still the one that was compared. Its rows are removed in the
     * background.
     *
     * @returns the ids of its ended sessions; undefined when nothing was changed
     */
    async remove (id: number, passwordHash: string): Promise<string[] | undefined> {
      const [row] = await database.query<{ is_deleted: boolean, ended: string[] }>(deleteUser, [id, passwordHash])
      return row!.is_deleted ? row!.ended : undefined
    },

    async findById (id: number): Promise<Account | undefined> {
      const [row] = await database.query<AccountRow>(userById, [id])
      return row && toAccount(row)
    },

    /** Returns the public profile of a user. @throws ApiError `not_found` */
    async profile (id: number): Promise<Profile> {
      const [row] = await database.query<Omit<Profile, 'created_at'> & { created_at: Date }>(profileById, [id])
      if (!row) throw new ApiError('not_found', { message: `There is no user ${id}` })
      return { ...row, created_at: row.created_at.toISOString() }
    },

    /** Returns a user and the stored hash. */
    async credentialsOf (id: number): Promise<AccountWithHash | undefined> {
      const [row] = await database.query<AccountRow & { password_hash: string }>(credentialsById, [id])
      return row && { account: toAccount(row), passwordHash: row.password_hash }
    },

    /** Finds a user and the stored hash by email, in any letter case. */
    async findByEmail (email: string): Promise<AccountWithHash | undefined> {
      const [row] = await database.query<AccountRow & { password_hash: string }>(userByEmail, [
        email,
        comparisonKey(email)
      ])
      return row && { account: toAccount(row), passwordHash: row.password_hash }
    }
  }
}
