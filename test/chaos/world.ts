import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import pg from 'pg'
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../db/embedded-postgres.ts'
import { integersAsNumbers } from '../../db/integers.ts'
import { migrate } from '../../db/migrate.ts'
import { connectRedis } from '../../services/stores/redis-connection.ts'
import { runSql } from '../helpers/app.ts'
import { createFaultyProxy } from '../helpers/faulty-proxy.ts'
import { freePort } from '../helpers/free-port.ts'
import { startRedis, startRedisCluster, type RedisServer } from '../helpers/redis-server.ts'
import { signToken } from '../helpers/token.ts'

const root = join(import.meta.dirname, '..', '..')
const secret = 'a secret of the chaos test, which guards nothing'

/** Milliseconds for which a viewer counts; half a minute of watching is a second here. */
export const presenceMs = 3000

export const userCount = 400
export const videoCount = 24

/** Videos that get one comment with a key each; they come after the others. */
export const keyedVideoCount = 40_000

/** A process of the service that is started again whenever it ends. */
export interface Replica {
  port: number
  kill(): void
  stop(): void
  resume(): void
}

export interface World {
  replicas: Replica[]
  pool: pg.Pool
  postgres: EmbeddedPostgres
  /** For the test itself. */
  redis: Redis | Cluster
  isCluster: boolean
  /** Loses everything that Redis knows while it runs. */
  empty(): Promise<void>
  /** `kill -9`, and back with what a snapshot of some seconds ago holds. */
  goBackInTime(): Promise<void>
  takeSnapshot(): Promise<void>
  /** A replica takes the master's place, which is gone. */
  promote(): Promise<void>
  forgetScripts(): Promise<void>
  tokenOf(userId: number): string
  isReady(): Promise<void>
  end(): Promise<void>
}

interface RedisWorld
  extends Pick<World, 'empty' | 'goBackInTime' | 'takeSnapshot' | 'promote' | 'forgetScripts' | 'redis'> {
  url: string
}

/** Everything of its own: a PostgreSQL, Redis servers and three processes of the service. */
export async function createWorld (
  { isCluster, bug, durability }: { isCluster: boolean, bug: string | undefined, durability: string }
): Promise<World> {
  const ends: (() => unknown)[] = []
  const owner = {
    teardown: (end: () => unknown) => {
      ends.push(end)
    }
  }
  const end = async (): Promise<void> => {
    for (const one of ends.reverse()) await one()
  }
  try {
    const postgres = await startEmbeddedPostgres(join(root, '.data', 'chaos'))
    ends.push(() => postgres.stop())
    const databaseUrl = await freshDatabase(postgres.url)
    const pool = new pg.Pool({ connectionString: databaseUrl, max: 2, types: integersAsNumbers })
    pool.on('error', () => {})
    ends.push(async () => {
      await pool.end()
      await runSql(postgres.url, `drop database if exists ${new URL(databaseUrl).pathname.slice(1)} with (force)`)
    })
    const redisWorld = isCluster ? await createCluster(owner) : await createSingle(owner)

    const logs = await mkdtemp(join(tmpdir(), 'halo-chaos-'))
    ends.push(() => rm(logs, { recursive: true, force: true }))
    const replicas = await Promise.all([1, 2, 3].map(n =>
      startReplica(owner, {
        DATABASE_URL: databaseUrl,
        REDIS_URL: redisWorld.url,
        REDIS_CLUSTER: String(isCluster),
        JWT_SECRET_KEY: secret,
        COUNTER_DURABILITY: durability,
        ...bug === undefined ? {} : { CHAOS_BUG: bug }
      }, join(logs, `${n}.log`))
    ))
    return {
      ...redisWorld,
      replicas,
      pool,
      postgres,
      isCluster,
      tokenOf: userId => signToken(secret, userId),
      isReady: () => isReady(replicas),
      end
    }
  } catch (error) {
    await end()
    throw error
  }
}

async function freshDatabase (adminUrl: string): Promise<string> {
  // A name of its own: a second run beside this one must not pull the database from under it.
  const name = `chaos_${process.pid}`
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  await runSql(adminUrl, `drop database if exists ${name} with (force)`)
  await runSql(adminUrl, `create database ${name}`)
  await migrate({ connectionString: url.href })
  await runSql(
    url.href,
    "insert into users (email, username, password_hash) select n || '@example.com', 'user' || n, 'x' from generate_series(1, $1) n",
    [userCount]
  )
  await runSql(url.href, "insert into videos (user_id, title) select 1, 'video ' || n from generate_series(1, $1) n", [
    videoCount + keyedVideoCount
  ])
  return url.href
}

/** A master and its replica, behind an address that can be pointed at either. */
async function createSingle (owner: Parameters<typeof createFaultyProxy>[0]): Promise<RedisWorld> {
  const fast = ['--repl-diskless-sync-delay', '0']
  let master = await startRedis(fast)
  let replica = await startRedis(fast)
  owner.teardown(() => Promise.all([master.stop(), replica.stop()]))
  await follow(replica, master)
  const proxy = await createFaultyProxy(owner, master.url, 6379)
  const redis = connectRedis({ url: proxy.url, isCluster: false })
  redis.on('error', () => {})
  owner.teardown(() => redis.disconnect())
  await redis.connect()
  let snapshot: string | undefined
  return {
    url: proxy.url,
    redis,
    async empty () {
      await master.client.flushall()
    },
    async takeSnapshot () {
      snapshot = await master.snapshot()
    },
    async goBackInTime () {
      await master.restart(snapshot)
    },
    async promote () {
      // The old master goes on for a moment: clients still connected to it count there, and those counts are lost.
      await replica.client.replicaof('NO', 'ONE')
      proxy.retarget(replica.url)
      await master.kill()
      ;[master, replica] = [replica, master]
      await replica.restart()
      await follow(replica, master)
    },
    async forgetScripts () {
      await master.client.script('FLUSH')
    }
  }
}

async function follow (replica: RedisServer, master: RedisServer): Promise<void> {
  await replica.client.replicaof('127.0.0.1', master.port)
  for (let tries = 0; !/master_link_status:up/.test(await replica.client.info('replication')); tries++) {
    if (tries > 200) throw new Error('the replica does not follow')
    await sleep(20)
  }
}

/** Three masters on loopback. */
async function createCluster (owner: Parameters<typeof createFaultyProxy>[0]): Promise<RedisWorld> {
  const nodes = await startRedisCluster()
  owner.teardown(() => Promise.all(nodes.map(node => node.stop())))
  const redis = connectRedis({ url: nodes[0]!.url, isCluster: true })
  redis.on('error', () => {})
  owner.teardown(() => redis.disconnect())
  await redis.connect()
  const snapshots: string[] = []
  return {
    url: nodes[0]!.url,
    redis,
    async empty () {
      await nodes[1]!.client.flushall()
    },
    async takeSnapshot () {
      snapshots[1] = await nodes[1]!.snapshot()
    },
    async goBackInTime () {
      await nodes[1]!.restart(snapshots[1])
    },
    async promote () {
      throw new Error('three masters have no replica')
    },
    async forgetScripts () {
      await Promise.all(nodes.map(node => node.client.script('FLUSH')))
    }
  }
}

async function startReplica (
  owner: Parameters<typeof createFaultyProxy>[0],
  env: Record<string, string>,
  log: string
): Promise<Replica> {
  const port = await freePort()
  const out = openSync(log, 'a')
  let isOver = false
  let child: ChildProcess

  function start (): void {
    child = spawn(process.execPath, [join(import.meta.dirname, 'process.ts')], {
      env: {
        PATH: process.env['PATH'],
        NODE_ENV: 'test',
        ...env,
        SERVER_PORT: String(port),
        LOG_LEVEL: 'warn',
        DB_MAX_OPEN_CONNS: '10',
        DB_MAX_IDLE_CONNS: '5',
        RATE_LIMIT_RPS: '1000000',
        RATE_LIMIT_BURST: '1000000',
        ENGAGEMENT_RATE_LIMIT_RPS: '1000000',
        ENGAGEMENT_RATE_LIMIT_BURST: '1000000'
      },
      stdio: ['ignore', out, out]
    })
    child.once('exit', () => {
      if (!isOver) start()
    })
  }
  start()
  owner.teardown(async () => {
    isOver = true
    child.kill('SIGCONT')
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  })
  return {
    port,
    kill: () => {
      child.kill('SIGKILL')
    },
    stop: () => {
      child.kill('SIGSTOP')
    },
    resume: () => {
      child.kill('SIGCONT')
    }
  }
}

async function isReady (replicas: Replica[]): Promise<void> {
  for (const { port } of replicas) {
    for (let tries = 0; ; tries++) {
      const status = await fetch(`http://127.0.0.1:${port}/health`, { signal: AbortSignal.timeout(2000) }).then(
        answer => answer.status,
        () => 0
      )
      if (status === 200) break
      if (tries > 150) throw new Error(`the process on port ${port} does not come up`)
      await sleep(100)
    }
  }
}
