import type { Redis } from 'ioredis'

/** Key of a Redis database that belongs to the tests: only a database with it, or an empty one, is ever flushed. */
export const markerKey = 'halo-test:marker'

/** Whether a Redis database may be flushed: it is empty, or was marked by a test run. */
export async function isOursOrEmpty (redis: Redis): Promise<boolean> {
  return await redis.dbsize() === 0 || await redis.exists(markerKey) === 1
}

/** Empties a Redis database of the tests. @throws Error for a database that is not theirs; nothing is flushed then */
export async function emptyTestDatabase (redis: Redis): Promise<void> {
  if (!await isOursOrEmpty(redis)) {
    throw new Error('This Redis database holds data that are not of a test: it is not flushed')
  }
  await redis.multi().flushdb().set(markerKey, '1').exec()
}
