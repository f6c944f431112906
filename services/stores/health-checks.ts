/** A dependency outside the process, whose failure the service survives and reports. */
export interface Dependency {
  name: 'database' | 'redis' | 'schema'
  /** Resolves when the dependency works; rejects when it is unavailable. */
  check (): Promise<void>
}

export type Status = Record<Dependency['name'], boolean>

export interface DependencyOptions {
  dependencies: Dependency[]
  /** Milliseconds after which a dependency that does not answer counts as unavailable. */
  timeoutMs?: number
  /** Milliseconds for which a result is reused, so that probes are no load. */
  maxAgeMs?: number
  /**
   * Milliseconds for which a good result is still returned while a new check runs: frequent probes do not wait for a
   * slow dependency, and see a failed one at the probe after the next.
   */
  maxStaleMs?: number
  now?: () => number
  onChange?: (name: Dependency['name'], isUp: boolean, error: unknown) => void
}

export type HealthChecks = ReturnType<typeof createHealthChecks>

/** Checks the dependencies: one check at a time, and only when the last result is old. */
export function createHealthChecks (options: DependencyOptions) {
  const { dependencies, timeoutMs = 700, maxAgeMs = 500, maxStaleMs = 1500, now = Date.now, onChange = () => {} } =
    options
  let last: { status: Status, at: number } | undefined
  let running: Promise<Status> | undefined

  async function ask (): Promise<Status> {
    const answers = await Promise.all(dependencies.map(async ({ name, check }) => {
      const isUp = await within(timeoutMs, check).then(() => true, (error: unknown) => {
        if (last?.status[name] !== false) onChange(name, false, error)
        return false
      })
      if (isUp && last?.status[name] === false) onChange(name, true, undefined)
      return [name, isUp] as const
    }))
    // A dependency that is not configured cannot fail.
    const status: Status = { database: true, redis: true, schema: true, ...Object.fromEntries(answers) }
    last = { status, at: now() }
    return status
  }

  return {
    /** The last result; undefined before the first check. */
    get last (): Status | undefined {
      return last?.status
    },

    /** Returns the status of all dependencies, within `timeoutMs`. Never rejects. */
    status (): Promise<Status> {
      const ageMs = last ? now() - last.at : Infinity
      if (ageMs >= maxAgeMs) {
        running ??= ask().finally(() => {
          running = undefined
        })
      }
      const isGood = last !== undefined && Object.values(last.status).every(Boolean)
      return ageMs < (isGood ? maxStaleMs : maxAgeMs) ? Promise.resolve(last!.status) : running!
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
