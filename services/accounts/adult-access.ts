import type { Database } from '../stores/database.ts'
import { ExpiringMap } from '../shared/expiring-map.ts'

/** Milliseconds for which an answer is cached: a changed setting takes effect within this time on other processes. */
const maxAgeMs = 900

/** Users whose answer is cached at the same time. */
const maxSize = 50_000

const adultContentOf = {
  name: 'adult_content_of_user',
  text: `
    select is_adult and adult_mode as sees_adult_content,
      exists (select from videos v where v.user_id = u.id and v.is_adult_content) as owns_adult_content
    from users u where id = $1`
}

/** Which adult content a user may see: all of it, only their own (`ownerId`), or none. */
export interface AdultView {
  seesAll: boolean
  /** The user, if they may see only their own adult content and have some. */
  ownerId: number | undefined
}

const all: AdultView = { seesAll: true, ownerId: undefined }
const none: AdultView = { seesAll: false, ownerId: undefined }

interface Answer {
  at: number
  view: Promise<AdultView>
  /** Set once the view has been read. */
  known?: AdultView
}

export interface AdultAccessOptions {
  database: Database
  /**
   * `server`: adult content is for adults in adult mode, and for its owner; `client`: everybody gets it, marked as
   * such.
   */
  gate: 'server' | 'client'
  now?: () => number
}

export type AdultAccess = ReturnType<typeof createAdultAccess>

/** Decides which adult content users may see. One query a second for each user at the most, shared by all requests. */
export function createAdultAccess ({ database, gate, now = performance.now.bind(performance) }: AdultAccessOptions) {
  const answers = new ExpiringMap<number, Answer>({ maxAgeMs, maxSize: maxSize / 2, now })

  async function ask (userId: number): Promise<AdultView> {
    const [row] = await database.query<{ sees_adult_content: boolean, owns_adult_content: boolean }>(adultContentOf, [
      userId
    ])
    if (row?.sees_adult_content) return all
    return row?.owns_adult_content ? { seesAll: false, ownerId: userId } : none
  }

  return {
    gate,

    get size () {
      return answers.size
    },

    /** The view of a request without a token. */
    anonymous: gate === 'client' ? all : none,

    /** Returns the cached view of a user; undefined when it has to be read. */
    peek (userId: number): AdultView | undefined {
      if (gate === 'client') return all
      const answer = answers.get(userId)
      return answer && now() - answer.at < maxAgeMs ? answer.known : undefined
    },

    /** Drops the cached view of a user whose settings or videos have changed. */
    forget (userId: number): void {
      answers.delete(userId)
    },

    /**
     * Returns the view of a user; that of nobody when the database is unavailable.
     *
     * @param userId undefined for a request without a token
     */
    async viewOf (userId: number | undefined): Promise<AdultView> {
      if (gate === 'client') return all
      if (userId === undefined) return none
      const known = answers.get(userId)
      if (known && now() - known.at < maxAgeMs) return await known.view
      const view = ask(userId).catch(() => none)
      const answer: Answer = { at: now(), view }
      view.then(seen => {
        answer.known = seen
      })
      answers.set(userId, answer)
      return await view
    }
  }
}

/** Whether a video may be seen with a view. */
export const isShown = (
  video: { is_adult_content: boolean, user_id: number },
  { seesAll, ownerId }: AdultView
): boolean => !video.is_adult_content || seesAll || video.user_id === ownerId
