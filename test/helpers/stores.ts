import type { Test } from 'tap'

/** The stores that a test runs on: embedded (PostgreSQL from npm, counters in the process) or real servers. */
export interface Stores {
  name: 'embedded' | 'servers'
  /** A PostgreSQL in which tests make databases of their own. */
  adminUrl: string
  redisUrl: string | null
}

/** What test/run.ts found and started, handed over by the environment. */
export function availableStores (): Stores[] {
  const { HALO_TEST_EMBEDDED_URL, HALO_TEST_DATABASE_URL, HALO_TEST_REDIS_URL } = process.env
  const stores: Stores[] = []
  if (HALO_TEST_EMBEDDED_URL) stores.push({ name: 'embedded', adminUrl: HALO_TEST_EMBEDDED_URL, redisUrl: null })
  if (HALO_TEST_DATABASE_URL && HALO_TEST_REDIS_URL) {
    stores.push({
      name: 'servers',
      adminUrl: HALO_TEST_DATABASE_URL,
      redisUrl: withOwnRedisDatabase(HALO_TEST_REDIS_URL)
    })
  }
  if (stores.length === 0) throw new Error('Run the tests by "npm test": it starts what they need')
  return stores
}

/** Runs a test once on each of the available stores. */
export function onEachStore (t: Test, name: string, run: (t: Test, stores: Stores) => Promise<void>): void {
  for (const stores of availableStores()) {
    t.test(`${name} [${stores.name}]`, t => run(t, stores))
  }
}

/** The stores for a test of what does not depend on them: the real servers where there are any. */
export const anyStores = (): Stores => availableStores().at(-1)!

/** Test files run side by side, and each has videos with the same ids: each job has a Redis database of its own. */
function withOwnRedisDatabase (url: string): string {
  const own = new URL(url)
  const { TAP_JOB_ID = '0', HALO_TEST_JOBS = '1' } = process.env
  own.pathname = `/${Number(own.pathname.slice(1) || 0) + Number(TAP_JOB_ID) % Number(HALO_TEST_JOBS)}`
  return own.href
}

/** Why a test that needs a Redis did not run. */
export const needsRedis = 'it needs a Redis, and no redis-server is installed or named by TEST_REDIS_URL'

/** Tells test/run.ts that a test did not run. */
export function didNotRun (t: Test, why: string): void {
  t.comment(`did not run: ${t.name}: ${why}`)
}
