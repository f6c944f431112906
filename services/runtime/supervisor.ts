import cluster, { type Worker } from 'node:cluster'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BaseLogger } from 'pino'
import { mergeFamilies, withoutGauges, type Family } from './metrics.ts'
import type { ToPrimary, ToWorker, WorkerReport } from './worker-messages.ts'

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

/** Milliseconds after which the report of a worker says nothing of its present state any more. */
const staleMs = 5000

interface WorkerState {
  startedAt: number
  heardAt: number
  isListening: boolean
  /** The delay before its start, which doubles if it dies early again. */
  pauseMs: number
  /** What it has reported last. */
  report: WorkerReport | undefined
}

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
  const running = new Map<Worker, WorkerState>()
  /** Counters of workers that have ended. */
  let retired: Family[] = []
  let hasListened = false
  let isStopping = false
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
    const now = performance.now()
    const state: WorkerState = { startedAt: now, heardAt: now, isListening: false, pauseMs, report: undefined }
    running.set(worker, state)
    worker.on('listening', ({ address, port }) => {
      state.isListening = true
      hasListened = true
      tellState()
      started.resolve(`http://${address ?? '0.0.0.0'}:${port}`)
    })
    worker.on('message', (message: ToPrimary) => {
      state.heardAt = performance.now()
      state.report = message.report ?? state.report
      if (message.halo === 'collect') tell(worker, { halo: 'collected', id: message.id, metrics: metrics() })
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
    const { startedAt, pauseMs: before, report } = running.get(worker)!
    running.delete(worker)
    if (report) retired = mergeFamilies([retired, withoutGauges(report.metrics)])
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

  /** The metrics of all workers, as they reported them last, and of the supervisor. */
  function metrics (): Family[] {
    const now = performance.now()
    const silentMs = Math.max(0, ...[...running.values()].map(({ heardAt }) => now - heardAt))
    const gauge = (name: string, help: string, value: number): Family =>
      ({ name, help, type: 'gauge', merge: 'max', series: [{ labels: '', value }] })
    return [
      gauge('halo_worker_silence_seconds', 'Time since the worker that is silent for longest has reported', silentMs / 1000),
      ...mergeFamilies([retired, ...[...running.values()].map(({ report }) => report?.metrics ?? [])])
    ]
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

    metrics,

    /** The answer of `/readyz`: ready while a worker is that has reported within some seconds. */
    readiness (): WorkerReport['readiness'] {
      const now = performance.now()
      const current = [...running.values()]
        .filter(({ heardAt }) => now - heardAt < staleMs)
        .map(({ report }) => report?.readiness)
      const workers = { running: listening(), wanted }
      const best = current.find(one => one?.isReady) ?? current.find(one => one !== undefined)
      return { isReady: best?.isReady ?? false, body: { status: 'not_ready', ...best?.body, workers } }
    },

    /** Whether a worker has started: every store has answered it once. */
    hasStarted: (): boolean => [...running.values()].some(({ report }) => report?.hasStarted),

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
