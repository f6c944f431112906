import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readCommandLine, readCount } from '../../services/runtime/command-line.ts'
import { createGenerator } from '../../bench/generator.ts'
import { scenarios } from '../../bench/scenarios.ts'
import { createWorld, print, type World } from '../../bench/world.ts'
import { freePort } from '../helpers/free-port.ts'
import { podOf, type Probe } from '../kubernetes/render.ts'

/**
 * `npm run test:rolling`: two replicas behind Debian's haproxy, restarted in turn under a steady load of the mix of
 * the bench. Every request must be answered, and as expected: one that is not fails the run. Settings, probes and the
 * grace period are those of the Deployment in deploy/kubernetes; haproxy stands for its Service.
 *
 * `-- --restarts 10 --rate 2000` are its defaults. PostgreSQL and Redis as for `npm run bench`.
 */

const { values } = readCommandLine({
  usage: `Usage: npm run test:rolling -- [--restarts 10] [--rate 2000]

Restarts two replicas behind haproxy in turn, under a steady load of so many requests a second: every one must be
answered. Settings, probes and grace period come from deploy/kubernetes (needs go). PostgreSQL and Redis as for npm run bench; haproxy must be installed.`,
  options: { restarts: { type: 'string', default: '10' }, rate: { type: 'string', default: '2000' } }
})
const restarts = readCount('restarts', values.restarts, { min: 1, max: 1000 })
const rate = readCount('rate', values.rate, { min: 1, max: 1_000_000 })

const pod = await podOf('production')
const { SERVER_DRAIN_DELAY = '', SERVER_DRAIN_TIMEOUT = '' } = pod.settings

const folder = await mkdtemp(join(tmpdir(), 'halo-rolling-'))
const logFile = join(folder, 'replicas.log')
const world = await createWorld({ videos: 10_000 })
const generator = createGenerator()
const replicas: Replica[] = []
let balancer: Balancer | undefined
try {
  replicas.push(await createReplica(world), await createReplica(world))
  balancer = await startBalancer(replicas)
  const kinds = scenarios.find(({ name }) => name === 'mix')!.kinds(world)
  const load = { host: '127.0.0.1', port: balancer.port, kinds, connections: 200, addresses: 250 }
  await generator.run({ ...load, seconds: 2, rate: 200 })

  // Each restart takes the drain and a boot; the load goes on for as long as they do.
  const restarting = new AbortController()
  const results: Awaited<ReturnType<typeof generator.run>>[] = []
  const loading = (async () => {
    while (!restarting.signal.aborted) {
      results.push(await generator.run({ ...load, seconds: 5, rate, timeoutMs: 15_000 }))
    }
  })()
  const times: number[] = []
  for (let n = 0; n < restarts; n++) {
    const startedAt = performance.now()
    await replicas[n % 2]!.restart()
    times.push((performance.now() - startedAt) / 1000)
    await sleep(500)
  }
  restarting.abort()
  await loading

  const answered = results.reduce((sum, result) => sum + result.answered, 0)
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0)
  const failed = results.map(result => result.unexpected).filter(found => Object.keys(found).length > 0)
  print(
    `${restarts} rolling restarts (${Math.min(...times).toFixed(1)} to ${
      Math.max(...times).toFixed(1)
    } s each) behind haproxy: ${answered} requests answered as expected in ${seconds.toFixed(0)} s, ${
      failed.length === 0 ? 'none failed' : `failed: ${JSON.stringify(failed)}`
    }; p99 ${Math.max(...results.map(({ latency }) => latency.p99)).toFixed(0)} ms at the most`
  )
  const kills = replicas.reduce((sum, replica) => sum + replica.kills(), 0)
  if (kills > 0) print(`${kills} kills by the liveness probe`)
  const exits = replicas.flatMap(replica => replica.exits)
  if (exits.some(code => code !== 0)) print(`a replica did not end in peace: exit codes ${exits.join(', ')}`)
  if (failed.length > 0 || answered === 0 || kills > 0 || exits.some(code => code !== 0)) {
    process.exitCode = 1
    print(`what the replicas said of it:\n${warningsOf(await readFile(logFile, 'utf8')).join('\n')}`)
  }
} finally {
  generator.stop()
  await balancer?.stop()
  for (const replica of replicas) await replica.stop()
  await world.stop()
  await rm(folder, { recursive: true })
}

/** Warnings and errors of a log, each kind once with its number and the first one's line. */
function warningsOf (log: string): string[] {
  const kinds = new Map<string, { count: number, first: string }>()
  for (const line of log.split('\n')) {
    if (line === '') continue
    const { level, msg, status = 0 } = JSON.parse(line) as { level: number, msg: string, status?: number }
    if (level < 40 && status < 500) continue
    const kind = `${msg} ${status}`
    const found = kinds.get(kind)
    if (found) found.count++
    else kinds.set(kind, { count: 1, first: line })
  }
  return [...kinds.values()].map(({ count, first }) => `${count} × ${first}`)
}

interface Replica {
  port: number
  /** Port of the readiness probe. */
  readyPort: number
  /** How often the liveness probe has killed it. */
  kills: () => number
  /** Exit codes of the processes that were replaced. */
  exits: (number | null)[]
  restart: () => Promise<void>
  stop: () => Promise<void>
}

async function createReplica (world: World): Promise<Replica> {
  const ports: Record<string, number> = { http: await freePort(), metrics: await freePort() }
  const exits: (number | null)[] = []
  let child: ChildProcess | undefined
  let kills = 0
  const asks = ({ path, port, timeoutSeconds }: Probe): Promise<boolean> =>
    fetch(`http://127.0.0.1:${ports[port]}${path}`, { signal: AbortSignal.timeout(timeoutSeconds * 1000) })
      .then(answer => answer.ok, () => false)

  async function start (): Promise<void> {
    const started = child = world.spawnService({
      ...pod.env,
      SERVER_DRAIN_DELAY,
      SERVER_DRAIN_TIMEOUT,
      SERVER_PORT: String(ports['http']),
      METRICS_PORT: String(ports['metrics'])
    }, logFile)
    for (const { failureThreshold, periodSeconds, ...probe } of [pod.startup, pod.readiness]) {
      const deadline = performance.now() + pod.startup.failureThreshold * pod.startup.periodSeconds * 1000
      while (!await asks({ ...probe, failureThreshold, periodSeconds })) {
        if (performance.now() > deadline || started.exitCode !== null) throw new Error('a replica did not start')
        await sleep(200)
      }
    }
    watch(started).catch(() => {})
  }

  /** Does what the kubelet does: kills a process whose liveness probe fails too often. */
  async function watch (started: ChildProcess): Promise<void> {
    for (let failures = 0; started.exitCode === null && started.signalCode === null;) {
      await sleep(pod.liveness.periodSeconds * 1000, undefined, { ref: false })
      failures = await asks(pod.liveness) || started.exitCode !== null ? 0 : failures + 1
      if (failures < pod.liveness.failureThreshold) continue
      kills++
      started.kill('SIGKILL')
    }
  }

  async function stop (): Promise<void> {
    if (!child || child.exitCode !== null) return
    const exit = once(child, 'exit') as Promise<[number | null]>
    child.kill('SIGTERM')
    const timer = setTimeout(() => { child!.kill('SIGKILL') }, pod.graceSeconds * 1000)
    exits.push((await exit)[0])
    clearTimeout(timer)
  }

  await start()
  return {
    port: ports['http']!,
    readyPort: ports[pod.readiness.port]!,
    exits,
    kills: () => kills,
    async restart () {
      await stop()
      await start()
      // Until the balancer has seen that it is back, the other one carries all: it must not be stopped before.
      await sleep(pod.readiness.periodSeconds * 1000 + 500)
    },
    stop
  }
}

interface Balancer {
  port: number
  stop: () => Promise<void>
}

/** haproxy, with the readiness probe of the pods. It asks the other replica when one cannot be reached. */
async function startBalancer (replicas: Replica[]): Promise<Balancer> {
  const port = await freePort()
  await writeFile(
    join(folder, 'haproxy.cfg'),
    `
global
  maxconn 4000
defaults
  mode http
  timeout connect 2s
  timeout check 1s
  timeout client 130s
  timeout server 12s
  timeout http-keep-alive 110s
  option forwardfor if-none
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response
frontend api
  bind 127.0.0.1:${port}
  default_backend replicas
backend replicas
  balance roundrobin
  http-reuse safe
  option httpchk GET ${pod.readiness.path}
  default-server check inter ${pod.readiness.periodSeconds}s fall ${pod.readiness.failureThreshold} rise 1
${replicas.map(({ port, readyPort }, index) => `  server replica${index} 127.0.0.1:${port} port ${readyPort}`).join('\n')}
`
  )
  const child = spawn('haproxy', ['-db', '-f', join(folder, 'haproxy.cfg')], { stdio: ['ignore', 'ignore', 'ignore'] })
  let failure: Error | undefined
  child.once('error', error => {
    failure = error
  })
  for (let tries = 0; !await fetch(`http://127.0.0.1:${port}/readyz`).then(answer => answer.ok, () => false); tries++) {
    if (failure) {
      throw new Error('haproxy could not be started: install it, for example by apt-get install haproxy', {
        cause: failure
      })
    }
    if (tries > 100 || child.exitCode !== null) throw new Error('haproxy did not start')
    await sleep(100)
  }
  return {
    port,
    async stop () {
      child.kill('SIGTERM')
      if (child.exitCode === null) await once(child, 'exit')
    }
  }
}
