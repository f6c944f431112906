/** A part outside the process whose absence the service survives and reports. */
export interface Dependency {
  name: 'database' | 'redis' | 'schema'
  /** Resolves when the part answers as it should; anything else means that it is away. */
  check (): Promise<void>
}

export type Status = Record<Dependency['name'], boolean>

export interface DependencyOptions {
  dependencies: Dependency[]
  /** Milliseconds after which a silent part counts as away. */
  timeoutMs?: number
  /** Milliseconds for which an answer stands, so that probes do not become load. */
  maxAgeMs?: number
  /**
   * Milliseconds for which one that all parts are there is still given while they are asked anew: who asks all the time does
   * not wait for a part that is slow, and hears of one that is away at the next question but one.
   */
  maxStaleMs?: number
  now?: () => number
  onChange?: (name: Dependency['name'], isUp: boolean, error: unknown) => void
}

export type DependencyService = ReturnType<typeof createHealthChecks>

/** Asks the dependencies how they are, at most once at a time and only when the last answer is old. */
export function createHealthChecks (options: DependencyOptions) {
  const { dependencies, timeoutMs = 700, maxAgeMs = 500, maxStaleMs = 1500, now = Date.now, onChange = () => {} } = options
  let last: { status: Status, at: number } | undefined
  let underWay: Promise<Status> | undefined

  async function ask (): Promise<Status> {
    const answers = await Promise.all(dependencies.map(async ({ name, check }) => {
      const isUp = await within(timeoutMs, check).then(() => true, (error: unknown) => {
        if (last?.status[name] !== false) onChange(name, false, error)
        return false
      })
      if (isUp && last?.status[name] === false) onChange(name, true, undefined)
      return [name, isUp] as const
    }))
    // A part that is not used cannot be away.
    const status: Status = { database: true, redis: true, schema: true, ...Object.fromEntries(answers) }
    last = { status, at: now() }
    return status
  }

  return {
    /** The last answer, without asking; undefined before the first one. */
    get last (): Status | undefined { return last?.status },

    /** Never rejects; answers within `timeoutMs`, and at once who has asked a moment ago. */
    status (): Promise<Status> {
      const ageMs = last ? now() - last.at : Infinity
      if (ageMs >= maxAgeMs) underWay ??= ask().finally(() => { underWay = undefined })
      const isGood = last !== undefined && Object.values(last.status).every(Boolean)
      return ageMs < (isGood ? maxStaleMs : maxAgeMs) ? Promise.resolve(last!.status) : underWay!
    }
  }
}

async function within (ms: number, work: () => Promise<void>): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`No answer within ${ms} ms`)), ms)
  try {
    await Promise.race([work(), promise])
  } finally {
    clearTimeout(timer)
  }
}
