import type { Database } from '../stores/database.ts'
import { ExpiringMap } from '../shared/expiring-map.ts'

/** Milliseconds for which an answer stands: so long a changed setting may take to have its effect. */
const maxAgeMs = 900

/** Users that are remembered at once. */
const maxSize = 50_000

const adultContentOf = {
  name: 'adult_content_of_user',
  text: `
    select is_adult and adult_mode as sees_adult_content,
      exists (select from videos v where v.user_id = u.id and v.is_adult_content) as owns_adult_content
    from users u where id = $1`
}

/** Which adult content a user is shown: all, that of their own (`ownerId`), or none. */
export interface AdultView {
  seesAll: boolean
  /** The user, if they see only their own and have some. */
  ownerId: number | undefined
}

const all: AdultView = { seesAll: true, ownerId: undefined }
const none: AdultView = { seesAll: false, ownerId: undefined }

interface Answer {
  at: number
  view: Promise<AdultView>
  /** What it came to. */
  known?: AdultView
}

export interface AdultAccessOptions {
  database: Database
  /** `server`: adult content is for adults in adult mode, and for its owner; `client`: everybody gets it, marked as such. */
  gate: 'server' | 'client'
  now?: () => number
}

export type AdultAccess = ReturnType<typeof createAdultAccess>

/** What users may be shown. The database is asked at most once a second for each, and by all requests together. */
export function createAdultAccess ({ database, gate, now = performance.now.bind(performance) }: AdultAccessOptions) {
  const answers = new ExpiringMap<number, Answer>({ maxAgeMs, maxSize: maxSize / 2, now })

  async function ask (userId: number): Promise<AdultView> {
    const [row] = await database.query<{ sees_adult_content: boolean, owns_adult_content: boolean }>(adultContentOf, [userId])
    if (row?.sees_adult_content) return all
    return row?.owns_adult_content ? { seesAll: false, ownerId: userId } : none
  }

  return {
    gate,

    get size () { return answers.size },

    /** The view of somebody without a token. */
    anonymous: gate === 'client' ? all : none,

    /** The same as viewOf, if it is known: for the hot path. */
    peek (userId: number): AdultView | undefined {
      if (gate === 'client') return all
      const answer = answers.get(userId)
      return answer && now() - answer.at < maxAgeMs ? answer.known : undefined
    },

    /** A user has changed their settings or their videos: on this process it has its effect at once. */
    forget (userId: number): void { answers.delete(userId) },

    /**
     * Which adult content is shown. When the database cannot tell, none.
     *
     * @param userId undefined for somebody without a token
     */
    async viewOf (userId: number | undefined): Promise<AdultView> {
      if (gate === 'client') return all
      if (userId === undefined) return none
      const known = answers.get(userId)
      if (known && now() - known.at < maxAgeMs) return await known.view
      const view = ask(userId).catch(() => none)
      const answer: Answer = { at: now(), view }
      view.then(seen => { answer.known = seen })
      answers.set(userId, answer)
      return await view
    }
  }
}

/** Whether a video is shown in a view. */
export const isShown = (video: { is_adult_content: boolean, user_id: number }, { seesAll, ownerId }: AdultView): boolean =>
  !video.is_adult_content || seesAll || video.user_id === ownerId
