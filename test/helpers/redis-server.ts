import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { freePort } from './free-port.ts'

/** A Redis of a test's own, which the test may kill and bring back. */
export interface RedisServer {
  port: number
  url: string
  /** For the test itself, not for what is under test. */
  client: Redis
  /** As `kill -9`: it says and keeps nothing more. */
  kill(): Promise<void>
  /** Starts it again, with what the last snapshot holds (none: empty). */
  restart(snapshot?: string): Promise<void>
  /** Writes a snapshot, and tells where a copy of it lies. */
  snapshot(): Promise<string>
  stop(): Promise<void>
}

/**
 * Starts `redis-server` on a free port of this machine. It keeps nothing on disk but the snapshots that are asked
 * for.
 */
export async function startRedis (args: string[] = []): Promise<RedisServer> {
  const folder = await mkdtemp(join(tmpdir(), 'halo-redis-'))
  const port = await freePort()
  let child: ChildProcess
  let snapshots = 0

  async function start (): Promise<void> {
    child = spawn('redis-server', [
      '--port',
      String(port),
      '--bind',
      '127.0.0.1',
      '--dir',
      folder,
      '--save',
      '',
      '--appendonly',
      'no',
      ...args
    ], { stdio: 'ignore' })
    let failure: Error | undefined
    child.once('error', error => {
      failure = error
    })
    for (let tries = 0; ; tries++) {
      const isUp = await client.ping().then(() => true, () => false)
      if (isUp) return
      if (failure) {
        throw new Error('redis-server could not be started: install it, for example by apt-get install redis-server', {
          cause: failure
        })
      }
      if (tries > 250 || child.exitCode !== null) throw new Error(`redis-server did not start on port ${port}`)
      await sleep(20)
    }
  }

  async function kill (): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  const client = new Redis(port, '127.0.0.1', {
    retryStrategy: () => 20,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false
  })
  client.on('error', () => {})
  await start()
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    client,
    kill,
    async restart (snapshot) {
      await kill()
      await rm(join(folder, 'dump.rdb'), { force: true })
      if (snapshot !== undefined) await copyFile(snapshot, join(folder, 'dump.rdb'))
      await start()
    },
    async snapshot () {
      await client.save()
      const copy = join(folder, `snapshot-${snapshots++}.rdb`)
      await copyFile(join(folder, 'dump.rdb'), copy)
      return copy
    },
    async stop () {
      client.disconnect()
      await kill()
      await rm(folder, { recursive: true, force: true })
    }
  }
}

/** Three masters with the slots of a Redis Cluster divided among them. */
export async function startRedisCluster (): Promise<RedisServer[]> {
  const nodes = await Promise.all(
    [0, 1, 2].map(() =>
      startRedis([
        '--cluster-enabled',
        'yes',
        '--cluster-node-timeout',
        '2000',
        '--cluster-require-full-coverage',
        'no'
      ])
    )
  )
  const size = Math.ceil(16_384 / nodes.length)
  for (const [index, { client }] of nodes.entries()) {
    await client.cluster('ADDSLOTSRANGE', index * size, Math.min((index + 1) * size, 16_384) - 1)
    await client.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
    if (index > 0) await client.cluster('MEET', '127.0.0.1', nodes[0]!.port)
  }
  for (let tries = 0; ; tries++) {
    const infos = await Promise.all(nodes.map(({ client }) => client.cluster('INFO')))
    if (
      infos.every(info =>
        ['cluster_state:ok', 'cluster_known_nodes:3', 'cluster_slots_assigned:16384'].every(fact => info.includes(fact))
      )
    ) return nodes
    if (tries > 300) throw new Error('the cluster does not form')
    await sleep(50)
  }
}
