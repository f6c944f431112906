import cluster, { type Worker } from 'node:cluster'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BaseLogger } from 'pino'
import type { MetricsOfWorker, ToPrimary, ToWorker } from './worker-messages.ts'

export interface SupervisorOptions {
  workers: number
  /** Environment of the workers, in addition to that of this process. */
  env: Record<string, string>
  logger: Pick<BaseLogger, 'info' | 'warn' | 'error'>
  /** Milliseconds that a worker has to end after it was asked to drain; then it is killed. */
  drainMs: number
  /** Milliseconds without a heartbeat after which a worker is killed and replaced. */
  silenceMs?: number
}

/** A worker that ran for this many milliseconds is replaced at once; otherwise after a delay that doubles. */
const stableMs = 10_000
const firstPauseMs = 100
const longestPauseMs = 10_000

/** Milliseconds within which workers must report their metrics; late ones are left out. */
const collectMs = 500

export type Supervisor = ReturnType<typeof createSupervisor>

/**
 * Runs the service in several worker processes behind one port. It replaces workers that die or hang, drains all of
 * them together, and collects their metrics.
 *
 * All workers accept from one shared socket (cluster's SCHED_NONE). Distributing connections from the supervisor
 * makes a short connection cost three times as much, and one socket per worker (SO_REUSEPORT) loses the connections
 * in the queue of a worker that dies: npm run bench:workers.
 */
export function createSupervisor ({ workers: wanted, env, logger, drainMs, silenceMs = 30_000 }: SupervisorOptions) {
  /** The workers, each with the delay before its start, which doubles if it dies early again. */
  const running = new Map<Worker, { startedAt: number, heardAt: number, isListening: boolean, pauseMs: number }>()
  let hasListened = false
  let isStopping = false
  let collections = 0
  const collecting = new Map<
    number,
    { reply: (metrics: MetricsOfWorker[]) => void, metrics: MetricsOfWorker[], missing: number }
  >()
  const started = Promise.withResolvers<string>()
  const ended = Promise.withResolvers<void>()
  let exitCode = 0

  const tell = (worker: Worker, message: ToWorker): void => {
    if (worker.isConnected()) worker.send(message, () => {})
  }

  const listening = (): number => [...running.values()].filter(({ isListening }) => isListening).length

  function tellState (): void {
    for (const worker of running.keys()) tell(worker, { halo: 'state', running: listening(), wanted })
  }

  function start (pauseMs = 0): void {
    if (isStopping) return
    const worker = cluster.fork(env)
    const state = { startedAt: performance.now(), heardAt: performance.now(), isListening: false, pauseMs }
    running.set(worker, state)
    worker.on('listening', ({ address, port }) => {
      state.isListening = true
      hasListened = true
      tellState()
      started.resolve(`http://${address ?? '0.0.0.0'}:${port}`)
    })
    worker.on('message', (message: ToPrimary) => {
      state.heardAt = performance.now()
      if (message.halo === 'collect') collect(worker, message.id)
      else if (message.halo === 'metrics') collected(message.id, message.metrics)
    })
    // The channel of a worker that has just died.
    worker.on('error', error => {
      logger.warn({ cause: error.message, pid: worker.process.pid }, 'a worker cannot be told')
    })
    worker.on('exit', (code, signal) => {
      replace(worker, code, signal)
    })
  }

  function replace (worker: Worker, code: number | null, signal: string | null): void {
    const { startedAt, pauseMs: before } = running.get(worker)!
    running.delete(worker)
    if (isStopping) {
      if (code !== 0) exitCode = 1
      if (running.size === 0) ended.resolve()
      return
    }
    const livedMs = Math.round(performance.now() - startedAt)
    if (!hasListened) {
      // No worker has ever become ready: exit, so that the operator sees it, instead of trying for ever.
      started.reject(new WorkerFailed(code ?? 1))
      return
    }
    const pauseMs = livedMs > stableMs ? 0 : Math.min(longestPauseMs, Math.max(firstPauseMs, before * 2))
    logger.error(
      { pid: worker.process.pid, code, signal, livedMs, pauseMs, running: listening(), wanted },
      'a worker died and is replaced'
    )
    tellState()
    setTimeout(() => {
      start(pauseMs)
    }, pauseMs)
  }

  function watch (): void {
    for (const [worker, { heardAt }] of running) {
      const silentMs = Math.round(performance.now() - heardAt)
      if (silentMs < silenceMs) continue
      logger.error({ pid: worker.process.pid, silentMs }, 'a worker hangs and is killed')
      worker.process.kill('SIGKILL')
    }
  }

  function collect (from: Worker, id: number): void {
    const number = ++collections
    const asked = [...running.keys()].filter(worker => worker.isConnected())
    const timer = setTimeout(() => {
      finish(number)
    }, collectMs)
    const reply = (metrics: MetricsOfWorker[]): void => {
      clearTimeout(timer)
      tell(from, { halo: 'collected', id, metrics })
    }
    collecting.set(number, { reply, metrics: [], missing: asked.length })
    for (const worker of asked) tell(worker, { halo: 'tell', id: number })
  }

  function collected (number: number, metrics: MetricsOfWorker): void {
    const collection = collecting.get(number)
    if (!collection) return
    collection.metrics.push(metrics)
    if (--collection.missing === 0) finish(number)
  }

  function finish (number: number): void {
    const { reply, metrics } = collecting.get(number)!
    collecting.delete(number)
    reply(metrics)
  }

  return {
    /** Starts the workers. @returns the address, as soon as one of them listens @throws WorkerFailed when one cannot */
    start (): Promise<string> {
      cluster.schedulingPolicy = cluster.SCHED_NONE
      // Workers inherit the environment; the .env file is read once.
      cluster.setupPrimary({ execArgv: process.execArgv.filter(argument => !argument.startsWith('--env-file')) })
      let lastAt = performance.now()
      setInterval(() => {
        const now = performance.now()
        // While the supervisor itself was stopped (SIGSTOP), it could not receive messages.
        if (now - lastAt < 5000) watch()
        else for (const state of running.values()) state.heardAt = now
        lastAt = now
      }, 1000).unref()
      for (let n = 0; n < wanted; n++) start()
      return started.promise
    },

    /** Drains all workers and waits for them. @returns the exit code: 0 when all of them ended by themselves */
    async stop (signal: string): Promise<number> {
      isStopping = true
      for (const worker of running.keys()) tell(worker, { halo: 'drain', signal })
      if (
        running.size > 0 && !await Promise.race([ended.promise.then(() => true), sleep(drainMs, false, { ref: false })])
      ) {
        logger.error({ running: running.size }, 'workers did not end in time and are killed')
        this.kill()
        return 1
      }
      return exitCode
    },

    kill (): void {
      for (const worker of running.keys()) worker.process.kill('SIGKILL')
    }
  }
}

/** A worker ended before any worker listened; it has logged the reason. */
export class WorkerFailed extends Error {
  override name = 'WorkerFailed'
  readonly exitCode: number

  constructor (exitCode: number) {
    super('a worker could not start')
    this.exitCode = exitCode
  }
}
