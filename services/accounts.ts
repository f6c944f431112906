import type { Account, Credentials, Registration } from '../schemas/user.ts'
import { ApiError } from './errors.ts'
import type { PasswordService } from './passwords.ts'
import type { UserService } from './users.ts'

export type AccountService = ReturnType<typeof createAccountService>

/** Registration and login: what ties users and passwords together. */
export function createAccountService (users: UserService, passwords: PasswordService) {
  return {
    /**
     * @throws ApiError `user_exists`; `server_busy` when too many passwords wait to be hashed
     */
    async register (registration: Registration): Promise<Account> {
      // Outside of any transaction: a hash takes a tenth of a second, and no connection waits for it.
      const passwordHash = await passwords.hash(registration.password)
      return await users.create({
        email: registration.email,
        username: registration.username,
        passwordHash,
        displayName: registration.display_name,
        isAdult: registration.is_adult ?? false
      })
    },

    /**
     * @throws ApiError `invalid_credentials`, alike in time and words for an unknown email and a wrong
     *   password; `server_busy`
     */
    async login ({ email, password }: Credentials): Promise<Account> {
      const found = await users.findByEmail(email)
      const isRight = await passwords.verify(password, found?.passwordHash)
      if (!found || !isRight) throw new ApiError('invalid_credentials')
      return found.account
    },

    /** @throws ApiError `unauthorized` when the token's user is no longer there */
    async profile (userId: number): Promise<Account> {
      const account = await users.findById(userId)
      if (!account) throw new ApiError('unauthorized', { message: 'The user of this token no longer exists' })
      return account
    }
  }
}
