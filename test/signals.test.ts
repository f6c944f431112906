import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createDatabase } from './helpers/app.ts'
import { freePort } from './helpers/free-port.ts'
import { cleanEnvironment, startService } from './helpers/service.ts'
import { anyStores, availableStores, didNotRun, needsRedis } from './helpers/stores.ts'
import { until } from './helpers/until.ts'

/** Signals at every moment of a process's life, and a reader of its log that has stopped. */

const root = join(import.meta.dirname, '..')

async function settings (t: Test, workers: number): Promise<Record<string, string> | undefined> {
  const stores = workers === 1 ? anyStores() : availableStores().find(({ redisUrl }) => redisUrl !== null)
  if (!stores) return undefined
  return {
    DATABASE_URL: await createDatabase(t, stores),
    ...stores.redisUrl === null ? {} : { REDIS_URL: stores.redisUrl },
    WEB_CONCURRENCY: String(workers),
    SERVER_PORT: String(await freePort())
  }
}

interface Outcome {
  code: number | null
  signal: string | null
  output: string
}

/** Milliseconds that Node itself takes to start on this machine at this moment; no program can take a signal before. */
async function startOfNode (): Promise<number> {
  const startedAt = performance.now()
  await once(spawn(process.execPath, ['-e', '0'], { env: cleanEnvironment(), stdio: 'ignore' }), 'close')
  return performance.now() - startedAt
}

/** Starts the service and sends it a signal some milliseconds after it has begun to run. */
async function stopAfter (
  env: Record<string, string>,
  ms: number,
  signal: 'SIGTERM' | 'SIGINT' = 'SIGTERM'
): Promise<Outcome> {
  const base = 2 * await startOfNode()
  const child = spawn(process.execPath, [join(root, 'server.ts')], {
    env: { ...cleanEnvironment(), ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let output = ''
  child.stdout.on('data', data => {
    output += String(data)
  })
  child.stderr.on('data', data => {
    output += String(data)
  })
  const closed = once(child, 'close') as Promise<[number | null, string | null]>
  await sleep(base + ms)
  child.kill(signal)
  const [code, from] = await closed
  return { code, signal: from, output }
}

for (const workers of [1, 2]) {
  t.test(`a stop request at any moment of a boot with ${workers} process(es) ends it with exit code 0`, async t => {
    const env = await settings(t, workers)
    if (!env) return didNotRun(t, needsRedis)
    const moments = workers === 1 ? [200, 500, 900, 1600] : [300, 800, 1600]
    for (const ms of moments) {
      const { code, signal, output } = await stopAfter(env, ms, ms % 200 === 100 ? 'SIGTERM' : 'SIGINT')
      t.strictSame({ code, signal }, { code: 0, signal: null }, `after ${ms} ms: ${output.slice(-300)}`)
      t.notMatch(output, /uncaught|could not start|at .*\.ts:/, `after ${ms} ms`)
    }
  })
}

t.test('signals are handled before anything heavy is loaded', async t => {
  const source = readFileSync(join(root, 'server.ts'), 'utf8')
  const imports = [...source.matchAll(/^import (?!type )[^\n]* from '([^']+)'/gm)].map(([, name]) => name!)
  t.ok(imports.length > 0)
  t.strictSame(
    imports.filter(name => !name.startsWith('node:')),
    [],
    'server.ts imports nothing but Node itself before its handlers stand'
  )
})

t.test('a stop request while a worker is being replaced ends with exit code 0', async t => {
  const env = await settings(t, 2)
  if (!env) return didNotRun(t, needsRedis)
  const service = await startService(t, env)
  await service.printed(/"listening"[\s\S]*"listening"/)
  const pid = Number(/"pid":(\d+)[^\n]*"msg":"listening"/.exec(service.output())![1])
  process.kill(pid, 'SIGKILL')
  await service.printed(/a worker died and is replaced/)
  service.child.kill('SIGTERM')
  t.strictSame(await service.exit, { code: 0, signal: null })
  t.notMatch(service.output(), /uncaught/)
})

/** Resident memory of a process and its children, in megabytes. */
function residentOf (child: ChildProcess): number {
  const family = [
    child.pid!,
    ...readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
  ]
  return family.reduce(
    (sum, pid) => sum + Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1000,
    0
  )
}

for (const workers of [1, 2]) {
  t.test(`a log reader that stops reading costs bounded memory and does not hold up the end of ${workers} process(es)`, async t => {
    const env = await settings(t, workers)
    if (!env) return didNotRun(t, needsRedis)
    const limits = { RATE_LIMIT_RPS: '1000000', RATE_LIMIT_BURST: '1000000', SERVER_DRAIN_TIMEOUT: '5' }
    const child = spawn(process.execPath, [join(root, 'server.ts')], {
      env: { ...cleanEnvironment(), ...env, ...limits },
      stdio: ['ignore', 'pipe', 'ignore']
    })
    t.teardown(() => child.kill('SIGKILL'))
    // Nobody reads: what is written stays in the pipe.
    child.stdout!.pause()
    const url = `http://127.0.0.1:${env['SERVER_PORT']}`
    await until('readiness', () => fetch(`${url}/readyz`).then(answer => answer.ok, () => false))
    const ask = async (count: number): Promise<void> => {
      for (let n = 0; n < count; n += 50) {
        await Promise.all(
          Array.from({ length: 50 }, () => fetch(`${url}/livez?${'x'.repeat(2000)}`).then(answer => answer.text()))
        )
      }
    }
    await ask(2500)
    const before = residentOf(child)
    await ask(2500)
    const after = residentOf(child)
    t.ok(after - before < 40 * workers, `from ${before.toFixed(0)} to ${after.toFixed(0)} MB`)
    t.match(
      await (await fetch(`${url}/metrics`)).text(),
      /^halo_log_lines_dropped_total [1-9]/m,
      'lines were dropped, and counted'
    )
    const startedAt = performance.now()
    child.kill('SIGTERM')
    if (workers === 2) {
      await sleep(300)
      child.kill('SIGTERM')
    }
    const [code] = await once(child, 'exit') as [number | null]
    t.ok(performance.now() - startedAt < 12_000, `${Math.round(performance.now() - startedAt)} ms`)
    if (workers === 1) t.equal(code, 0)
    await until('all of the group have ended', () => fetch(`${url}/livez`).then(() => false, () => true))
  })
}
