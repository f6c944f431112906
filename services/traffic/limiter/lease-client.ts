import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Cluster, type Redis } from 'ioredis'
import type { Lease, LeaseRequest } from './shared-buckets.ts'

export interface LeaseClientOptions {
  redis: Redis | Cluster
  /** Name of the policy that the buckets belong to. */
  policy: string
  rate: number
  burst: number
}

const script = readFileSync(join(import.meta.dirname, 'scripts', 'lease.lua'), 'utf8')
const sha = createHash('sha1').update(script).digest('hex')

/**
 * Key of a string: the time at which the bucket of a client will be full again. The shard is the limiter's own. The
 * rate and the burst are part of the key: under other settings the same time means another number of tokens, and a
 * client that was limited would stay refused after the limit was raised.
 */
const limitKey = (shard: number, policy: string, client: string): string => `halo:{l${shard}}:limit:${policy}:${client}`

/** Milliseconds worth of tokens that an empty bucket must gain before tokens of it are leased again. */
const minGainMs = 12

/** Leases tokens of the buckets in Redis: one script call for all requests of a turn of the event loop. */
export function createLeaseClient ({ redis, policy, rate, burst }: LeaseClientOptions) {
  const shardCount = redis instanceof Cluster ? 16 : 1
  const perToken = 1_000_000 / rate
  // No more than the bucket holds: a small bucket with a high rate is full long before.
  const minGain = Math.max(1, Math.min(burst, Math.floor(rate * minGainMs / 1000)))

  const shardOf = (client: string): number => {
    if (shardCount === 1) return 0
    let sum = 0
    for (let index = 0; index < client.length; index++) sum = (sum * 31 + client.charCodeAt(index)) % 65_536
    return sum % shardCount
  }

  async function leaseShard (shard: number, requests: LeaseRequest[]): Promise<Lease[]> {
    const keys = requests.map(({ client }) => limitKey(shard, `${policy}:${rate}:${burst}`, client))
    const args = [perToken, burst * perToken, minGain, ...requests.flatMap(({ wanted, owed }) => [wanted, owed])]
    const answers = await redis.evalsha(sha, keys.length, ...keys, ...args).catch((error: unknown) => {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error
      return redis.eval(script, keys.length, ...keys, ...args)
    }) as [number, number, number][]
    return answers.map(([tokens, waitMicros, left]) => ({ tokens, waitMs: waitMicros / 1000, left }))
  }

  return async (requests: LeaseRequest[]): Promise<Lease[]> => {
    if (shardCount === 1) return await leaseShard(0, requests)
    const shards = new Map<number, number[]>()
    requests.forEach(({ client }, index) => {
      const shard = shardOf(client)
      shards.set(shard, [...shards.get(shard) ?? [], index])
    })
    const leases: Lease[] = []
    await Promise.all([...shards].map(async ([shard, indexes]) => {
      const found = await leaseShard(shard, indexes.map(index => requests[index]!))
      indexes.forEach((index, position) => {
        leases[index] = found[position]!
      })
    }))
    return leases
  }
}
