import type { Database } from './database.ts'

/** Milliseconds for which an answer stands: so long a changed setting may take to have its effect. */
const maxAgeMs = 900

/** Viewers that are remembered at once. */
const maxSize = 50_000

const adultModeOf = {
  name: 'adult_mode_of_user',
  text: 'select is_adult and adult_mode as sees_adult_content from users where id = $1'
}

interface Answer {
  at: number
  seesAdultContent: Promise<boolean>
  /** What it came to. */
  known?: boolean
}

export type ViewerService = ReturnType<typeof createViewerService>

/** What a viewer may be shown. Asked of the database at most once a second for each, and by all requests together. */
export function createViewerService (database: Database, now: () => number = performance.now.bind(performance)) {
  const answers = new Map<number, Answer>()

  async function ask (userId: number): Promise<boolean> {
    const [row] = await database.query<{ sees_adult_content: boolean }>(adultModeOf, [userId])
    return row?.sees_adult_content ?? false
  }

  return {
    /** The same as below, if it is known: the way of the many. */
    peek (userId: number): boolean | undefined {
      const answer = answers.get(userId)
      return answer && now() - answer.at < maxAgeMs ? answer.known : undefined
    },

    /** A user has changed: here it has its effect at once. */
    forget (userId: number): void { answers.delete(userId) },

    /**
     * Whether adult content is shown: to an adult who has adult mode on, and to nobody else. When the database
     * cannot tell, the answer is no.
     *
     * @param userId undefined for somebody without a token
     */
    async seesAdultContent (userId: number | undefined): Promise<boolean> {
      if (userId === undefined) return false
      const known = answers.get(userId)
      if (known && now() - known.at < maxAgeMs) return await known.seesAdultContent
      const seesAdultContent = ask(userId).catch(() => false)
      const answer: Answer = { at: now(), seesAdultContent }
      seesAdultContent.then(sees => { answer.known = sees })
      answers.delete(userId)
      answers.set(userId, answer)
      if (answers.size > maxSize) answers.delete(answers.keys().next().value!)
      return await seesAdultContent
    }
  }
}
