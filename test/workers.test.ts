import { spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { createDatabase } from './helpers/app.ts'
import { freePort } from './helpers/free-port.ts'
import { startService, type Service } from './helpers/service.ts'
import { availableStores, didNotRun, needsRedis } from './helpers/stores.ts'

const stores = availableStores().find(({ redisUrl }) => redisUrl !== null)

async function startWorkers (t: Test, env: Record<string, string> = {}): Promise<Service> {
  const service = await startService(t, {
    DATABASE_URL: await createDatabase(t, stores!),
    REDIS_URL: stores!.redisUrl!,
    WEB_CONCURRENCY: '2',
    ...env
  })
  await service.printed(/stop: Ctrl-C/)
  // The log comes in batches.
  await service.printed(/"listening"[\s\S]*"listening"/)
  return service
}

/** One request on a connection of its own. */
async function ask (service: Service, path: string): Promise<{ status: number, id: string, body: string }> {
  const request = http.get(`${service.url}${path}`, { agent: false })
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  let body = ''
  for await (const chunk of response) body += String(chunk)
  return { status: response.statusCode!, id: String(response.headers['x-request-id']), body }
}

/** The processes that answer, by the word that their request ids begin with. */
async function processesOf (service: Service): Promise<Set<string>> {
  const answers = await Promise.all(Array.from({ length: 40 }, () => ask(service, '/livez')))
  t.ok(answers.every(({ status }) => status === 200))
  return new Set(answers.map(({ id }) => id.split('-')[0]!))
}

async function until (condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000
  while (!await condition()) {
    if (Date.now() > deadline) throw new Error('it did not come about')
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** Lines of the log. */
function logOf (service: Service): Record<string, unknown>[] {
  return service.output().split('\n').filter(line => line.startsWith('{')).map(line =>
    JSON.parse(line) as Record<string, unknown>
  )
}

t.test('a process that hangs is killed and replaced', async t => {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'helpers', 'supervised.ts')], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  t.teardown(() => child.kill('SIGKILL'))
  const lines: { pid?: number, msg?: string, silentMs?: number }[] = []
  createInterface(child.stdout).on('line', line => {
    lines.push(JSON.parse(line) as typeof lines[number])
  })
  const started = () => lines.filter(({ msg }) => msg === undefined).map(({ pid }) => pid!)
  await until(async () => started().length === 2)
  const hanging = started()[0]!
  process.kill(hanging, 'SIGSTOP')
  // Where nobody does it, or the run would wait for it for ever.
  t.teardown(() => {
    try {
      process.kill(hanging, 'SIGKILL')
    } catch { /* it is gone, as it should be */ }
  })
  await until(async () => started().length === 3)
  t.match(lines.filter(({ msg }) => msg !== undefined), [
    { pid: hanging, msg: 'a worker hangs and is killed' },
    { pid: hanging, signal: 'SIGKILL', running: 1, wanted: 2, msg: 'a worker died and is replaced' }
  ], 'and the other one is not')
  child.kill('SIGTERM')
  t.strictSame((await once(child, 'exit'))[0], 0)
})

if (stores === undefined) didNotRun(t, needsRedis)
else {
  t.test('two processes serve behind one port, speak as one, and end together', async t => {
    const service = await startWorkers(t)
    t.match(service.output(), /processes +2 \(WEB_CONCURRENCY\)/)
    await until(async () => (await processesOf(service)).size === 2)
    t.match(JSON.parse((await ask(service, '/readyz')).body), { status: 'ready', workers: { running: 2, wanted: 2 } })
    const { body } = await ask(service, '/metrics')
    t.match(body, /^halo_workers 2$/m)
    t.match(body, /^halo_workers_wanted 2$/m)
    t.match(body, /^halo_counters_flush_lag_seconds \d/m)
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        Array.from({ length: 50 }, (_, n) => ask(service, `/api/v1/videos/${n + 1}?${'x'.repeat(300)}`))
      )
    }
    service.child.kill('SIGTERM')
    t.strictSame(await service.exit, { code: 0, signal: null })
    const log = logOf(service)
    t.equal(log.filter(({ msg }) => msg === 'stopped').length, 2)
    t.ok(log.filter(({ msg }) => msg === 'request').length >= 1000, 'every line is there')
  })

  t.test('no counter falls when a process dies, and the port of the supervisor answers while one hangs', async t => {
    const port = await freePort()
    const service = await startWorkers(t, { METRICS_PORT: String(port) })
    await until(async () => (await processesOf(service)).size === 2)
    const read = async (path: string) => {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(2000) })
      return { status: answer.status, text: await answer.text() }
    }
    const total = async (): Promise<number> =>
      Number(/^halo_requests_total (\d+)$/m.exec((await read('/metrics')).text)![1])
    t.equal((await ask(service, '/metrics')).status, 404, 'the port of the API has none')
    await until(async () => await total() >= 40)
    const before = await total()
    const pids = logOf(service).filter(({ msg }) => msg === 'listening').map(({ pid }) => Number(pid))

    process.kill(pids[0]!, 'SIGKILL')
    await service.printed(/a worker died and is replaced/)
    t.ok(await total() >= before, 'the requests of the dead process are still counted')
    await until(async () => /"running":2/.test((await read('/readyz')).text))
    t.ok(await total() >= before)

    process.kill(pids[1]!, 'SIGSTOP')
    t.teardown(() => {
      try {
        process.kill(pids[1]!, 'SIGCONT')
      } catch {}
    })
    await until(async () =>
      Number(/^halo_worker_silence_seconds (\S+)$/m.exec((await read('/metrics')).text)![1]) > 2)
    t.equal((await read('/livez')).status, 200)
    t.equal((await read('/readyz')).status, 200, 'the other one is ready')
    t.equal((await read('/startupz')).status, 200)
    t.equal((await read('/api/v1/videos')).status, 404)
    t.ok(await total() >= before)
  })

  t.test('a process that dies is replaced, loudly, and the others go on', async t => {
    const service = await startWorkers(t)
    const pids = new Set(logOf(service).filter(({ msg }) => msg === 'listening').map(({ pid }) => Number(pid)))
    t.equal(pids.size, 2)
    const [victim] = pids
    process.kill(victim!, 'SIGKILL')
    await service.printed(/a worker died and is replaced/)
    t.equal((await ask(service, '/livez')).status, 200)
    await until(async () => /"running":2/.test((await ask(service, '/readyz')).body))
    await until(async () => (await processesOf(service)).size === 2)
    t.match(logOf(service).find(({ msg }) => msg === 'a worker died and is replaced'), {
      pid: victim,
      signal: 'SIGKILL',
      wanted: 2
    })
  })

  t.test('a process that is told to end ends in peace and is replaced', async t => {
    const service = await startWorkers(t)
    const victim = Number(logOf(service).find(({ msg }) => msg === 'listening')!['pid'])
    process.kill(victim, 'SIGTERM')
    await service.printed(/a worker died and is replaced/)
    t.match(logOf(service).find(({ msg }) => msg === 'a worker died and is replaced'), { pid: victim, code: 0 })
    await until(async () => /"running":2/.test((await ask(service, '/readyz')).body))
  })

  t.test('processes whose supervisor is gone give the port free', async t => {
    const service = await startWorkers(t)
    service.child.kill('SIGKILL')
    await once(service.child, 'exit')
    await until(async () => await ask(service, '/livez').then(() => false, () => true))
  })

  t.test('a second signal ends all at once', async t => {
    const service = await startWorkers(t, { SERVER_DRAIN_DELAY: '60' })
    service.child.kill('SIGTERM')
    await service.printed(/"draining"/)
    service.child.kill('SIGTERM')
    t.equal((await service.exit).code, 1)
  })

  t.test('a port that is taken is said so, and nothing goes on trying', async t => {
    const first = await startWorkers(t)
    const second = await startService(t, {
      DATABASE_URL: await createDatabase(t, stores),
      REDIS_URL: stores.redisUrl!,
      WEB_CONCURRENCY: '2',
      SERVER_PORT: new URL(first.url).port
    })
    t.equal((await second.exit).code, 1)
    t.match(second.output(), /HALO API could not start: port \d+ is taken: stop the other process, or set SERVER_PORT/)
  })
}
