import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
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

/** A certificate for 127.0.0.1, which is its own authority, and arguments of `redis-server` for TLS beside its port. */
export interface TlsSettings {
  certificateFile: string
  argsFor (port: number): string[]
}

/** Makes a certificate with `openssl`. */
export async function createTlsSettings (): Promise<TlsSettings> {
  const folder = await mkdtemp(join(tmpdir(), 'halo-tls-'))
  const [certificateFile, keyFile] = [join(folder, 'certificate.pem'), join(folder, 'key.pem')]
  execFileSync('openssl', [
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1'],
    ...['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', keyFile, '-out', certificateFile]
  ], { stdio: 'ignore' })
  return {
    certificateFile,
    argsFor: port => [
      ...['--tls-port', String(port), '--tls-cert-file', certificateFile, '--tls-key-file', keyFile],
      ...['--tls-ca-cert-file', certificateFile, '--tls-auth-clients', 'no']
    ]
  }
}

/** A sentinel that watches a master by the name of `halo`, and promotes a replica after half a second. */
export async function startSentinel (master: RedisServer): Promise<{ port: number, stop: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'halo-sentinel-'))
  const port = await freePort()
  const file = join(folder, 'sentinel.conf')
  await writeFile(
    file,
    `port ${port}
bind 127.0.0.1
sentinel monitor halo 127.0.0.1 ${master.port} 1
sentinel down-after-milliseconds halo 500
sentinel failover-timeout halo 3000
`
  )
  const child = spawn('redis-server', [file, '--sentinel'], { stdio: 'ignore' })
  return {
    port,
    async stop () {
      child.kill('SIGKILL')
      await once(child, 'exit')
      await rm(folder, { recursive: true, force: true })
    }
  }
}

/** Three masters with the slots of a Redis Cluster divided among them; with TLS, by `tlsPorts`. */
export async function startRedisCluster (
  tls?: TlsSettings
): Promise<(RedisServer & { tlsPort: number | undefined })[]> {
  const nodes = await Promise.all(
    [0, 1, 2].map(async () => {
      const tlsPort = tls ? await freePort() : undefined
      const server = await startRedis([
        '--cluster-enabled',
        'yes',
        '--cluster-node-timeout',
        '2000',
        '--cluster-require-full-coverage',
        'no',
        ...tlsPort === undefined ? [] : [...tls!.argsFor(tlsPort), '--tls-cluster', 'yes']
      ])
      return { ...server, tlsPort }
    })
  )
  const size = Math.ceil(16_384 / nodes.length)
  for (const [index, { client }] of nodes.entries()) {
    await client.cluster('ADDSLOTSRANGE', index * size, Math.min((index + 1) * size, 16_384) - 1)
    await client.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
    if (index > 0) await client.cluster('MEET', '127.0.0.1', nodes[0]!.tlsPort ?? nodes[0]!.port)
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
