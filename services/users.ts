import type { Account, Profile } from '../schemas/user.ts'
import { isUserTaken } from '../db/constraints.ts'
import type { Database } from './database.ts'
import { ApiError } from './errors.ts'

interface UserRow extends Omit<Account, 'created_at' | 'updated_at'> {
  created_at: Date
  updated_at: Date
}

export interface NewUser {
  email: string
  username: string
  passwordHash: string
  displayName: string
  isAdult: boolean
}

const columns = 'id, email, username, display_name, bio, avatar_url, is_adult, adult_mode, created_at, updated_at'

const insertUser = {
  name: 'insert_user',
  text: `
    insert into users (email, username, email_key, username_key, password_hash, display_name, is_adult)
    values ($1, $2, $3, $4, $5, $6, $7)
    returning ${columns}`
}

const userById = {
  name: 'user_by_id',
  text: `select ${columns} from users where id = $1`
}

const profileById = {
  name: 'profile_by_id',
  text: 'select id, username, display_name, bio, avatar_url, created_at from users where id = $1'
}

// Rows of the Go service may share a key but for letter case; the exact email then decides.
const userByEmail = {
  name: 'user_by_email',
  text: `
    select ${columns}, password_hash from users
    where email_key = $2 or email = $1
    order by email = $1 desc
    limit 1`
}

/** The form in which emails and usernames are compared: compatibility-normalised (NFKC), lower case. */
export const comparisonKey = (text: string): string => text.normalize('NFKC').toLowerCase()

export type UserService = ReturnType<typeof createUserService>

export function createUserService (database: Database) {
  return {
    /** @throws ApiError `user_exists` when the email or the username is taken in any letter case */
    async create (user: NewUser): Promise<Account> {
      try {
        const [row] = await database.query<UserRow>(insertUser, [
          user.email, user.username, comparisonKey(user.email), comparisonKey(user.username),
          user.passwordHash, user.displayName, user.isAdult
        ])
        return toAccount(row!)
      } catch (error) {
        throw isUserTaken(error) ? new ApiError('user_exists', { cause: error }) : error
      }
    },

    async findById (id: number): Promise<Account | undefined> {
      const [row] = await database.query<UserRow>(userById, [id])
      return row && toAccount(row)
    },

    /** What everybody may see of a user. @throws ApiError `not_found` */
    async profile (id: number): Promise<Profile> {
      const [row] = await database.query<Omit<Profile, 'created_at'> & { created_at: Date }>(profileById, [id])
      if (!row) throw new ApiError('not_found', { message: `There is no user ${id}` })
      return { ...row, created_at: row.created_at.toISOString() }
    },

    /** The user and the stored hash, for the one caller that compares it. */
    async findByEmail (email: string): Promise<{ account: Account, passwordHash: string } | undefined> {
      const [row] = await database.query<UserRow & { password_hash: string }>(userByEmail, [email, comparisonKey(email)])
      return row && { account: toAccount(row), passwordHash: row.password_hash }
    }
  }
}

function toAccount (row: UserRow): Account {
  return {
    id: row.id,
    email: row.email,
    username: row.username,
    display_name: row.display_name,
    bio: row.bio,
    avatar_url: row.avatar_url,
    is_adult: row.is_adult,
    adult_mode: row.adult_mode,
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString()
  }
}
