import { readFileSync } from 'node:fs'
import type { Redis } from 'ioredis'
import t from 'tap'
import { loadConfig } from '../../../fastify.config.ts'
import { connectRedis, databaseOf, describeRedis, type RedisAddress } from '../../../services/stores/redis-connection.ts'
import { addVideo, createApp, createDatabase, signUp } from '../../helpers/app.ts'
import { freePort } from '../../helpers/free-port.ts'
import { createTlsSettings, startRedis, startRedisCluster, startSentinel } from '../../helpers/redis-server.ts'
import { anyStores, availableStores, didNotRun, needsRedis } from '../../helpers/stores.ts'
import { until } from '../../helpers/until.ts'

const hasRedis = availableStores().some(stores => stores.redisUrl !== null)

/** Runs a command on a new connection to an address. */
async function ask (address: RedisAddress): Promise<string> {
  const client = connectRedis(address)
  let lastError: Error | undefined
  client.on('error', error => {
    lastError = error
  })
  try {
    await client.connect()
    await client.set('halo:test:connection', 'answered')
    return await client.get('halo:test:connection') ?? ''
  } catch (error) {
    throw lastError ?? error
  } finally {
    client.disconnect()
  }
}

t.test('TLS, the user and the password of an address reach every node of a cluster', async t => {
  if (!hasRedis) return didNotRun(t, needsRedis)
  const tls = await createTlsSettings()
  const nodes = await startRedisCluster(tls)
  t.teardown(() => Promise.all(nodes.map(node => node.stop())))
  await Promise.all(
    nodes.map(({ client }) => client.call('ACL', 'SETUSER', 'app', 'on', '>pass#word', '~*', '&*', '+@all'))
  )
  const url = `rediss://app:${encodeURIComponent('pass#word')}@127.0.0.1:${nodes[0]!.tlsPort}`
  const ca = readFileSync(tls.certificateFile, 'utf8')
  const parts = { host: '127.0.0.1', port: nodes[1]!.tlsPort!, username: 'app', password: 'pass#word', db: 0, isTls: true }
  for (const address of [{ url, isCluster: true, ca }, { ...parts, isCluster: true, ca }]) {
    const client = connectRedis(address)
    t.teardown(() => client.disconnect())
    client.on('error', () => {})
    await client.connect()
    await until('every node answers', () =>
      Promise.all(Array.from({ length: 30 }, (_, n) => client.set(`halo:test:${n}`, '1'))).then(() => true, () => false))
    for (const node of nodes) t.match(await node.client.call('CLIENT', 'LIST'), /user=app/)
    client.disconnect()
    await until('its connections are closed', async () =>
      !/user=app/.test(String(await nodes[0]!.client.call('CLIENT', 'LIST'))))
  }
  await t.rejects(ask({ url, isCluster: false }), /self-signed|certificate/i, 'an unknown authority is refused')
  await t.rejects(ask({ url: url.replace('app:', 'app:wrong'), ca, isCluster: false }), /WRONGPASS/)
})

t.test('a single Redis takes the user, the password and the database of its address', async t => {
  if (!hasRedis) return didNotRun(t, needsRedis)
  const tls = await createTlsSettings()
  const tlsPort = await freePort()
  const server = await startRedis(tls.argsFor(tlsPort))
  t.teardown(() => server.stop())
  await server.client.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '+@all')
  // The user without a name needs another password from now on.
  await server.client.call('ACL', 'SETUSER', 'default', 'resetpass', '>other')
  const config = loadConfig({
    REDIS_HOST: '127.0.0.1',
    REDIS_PORT: String(tlsPort),
    REDIS_USERNAME: 'app',
    REDIS_PASSWORD: 'secret',
    REDIS_DB: '3',
    REDIS_CA_FILE: tls.certificateFile
  })
  t.equal(await ask(config.redis!), 'answered')
  t.equal(databaseOf(config.redis!), 3)
  t.equal(describeRedis(config.redis!), `127.0.0.1:${tlsPort}`)
  await server.client.select(3)
  t.equal(await server.client.get('halo:test:connection'), 'answered')
  const url = `redis://app:secret@127.0.0.1:${server.port}/4`
  t.equal(await ask({ url, isCluster: false }), 'answered', 'by a URL')
  await server.client.select(4)
  t.equal(await server.client.get('halo:test:connection'), 'answered')
})

t.test('what is said of the sentinels reaches their connections', async t => {
  const client = connectRedis({
    sentinels: [{ host: '127.0.0.1', port: 1 }],
    masterName: 'halo',
    sentinelPassword: 'of the sentinels',
    password: 'of the server',
    db: 2,
    ca: 'a certificate',
    isCluster: false
  }) as Redis
  t.teardown(() => client.disconnect())
  t.match(client.options, {
    name: 'halo',
    sentinelPassword: 'of the sentinels',
    password: 'of the server',
    db: 2,
    tls: { ca: 'a certificate' },
    enableTLSForSentinelMode: true,
    sentinelTLS: { ca: 'a certificate' }
  })
})

t.test('after a failover by sentinels the service counts on the new master, and loses nothing that was flushed', async t => {
  if (!hasRedis) return didNotRun(t, needsRedis)
  const master = await startRedis()
  const replica = await startRedis()
  await replica.client.replicaof('127.0.0.1', master.port)
  await until('the replica follows', async () => /master_link_status:up/.test(await replica.client.info('replication')))
  const sentinel = await startSentinel(master)
  t.teardown(async () => {
    await sentinel.stop()
    await Promise.all([master.stop(), replica.stop()])
  })
  const stores = anyStores()
  const app = await createApp(t, {
    stores,
    databaseUrl: await createDatabase(t, stores),
    redisUrl: null,
    env: { REDIS_SENTINELS: `127.0.0.1:${sentinel.port}`, REDIS_SENTINEL_MASTER: 'halo', COUNTER_DURABILITY: 'flushed' }
  })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const comment = async () =>
    (await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/comments`, headers: authorization })).statusCode
  await until('Redis is found by the sentinel', async () => await comment() === 200)
  await until('the sentinel knows the replica', async () => /slave0:/.test(await master.client.info('replication')))
  await new Promise(resolve => setTimeout(resolve, 1500))
  await master.kill()
  await until('the replica was promoted and takes writes', async () => await comment() === 200)
  const counters = (await app.inject(`/api/v1/videos/${id}/engagement`)).json<{ comment_count: number }>()
  t.ok(counters.comment_count >= 2, String(counters.comment_count))
})
