import type { Family } from './metrics.ts'

/** What a worker reports to its supervisor each second. */
export interface WorkerReport {
  metrics: Family[]
  /** Answer of its `/readyz`. */
  readiness: { isReady: boolean, body: Record<string, unknown> }
  hasStarted: boolean
}

/** Messages from a worker to the supervisor. */
export type ToPrimary =
  | { halo: 'alive', report: WorkerReport | undefined }
  | { halo: 'collect', id: number, report: WorkerReport }

/** Messages from the supervisor to a worker. */
export type ToWorker =
  | { halo: 'drain', signal: string }
  | { halo: 'state', running: number, wanted: number }
  | { halo: 'collected', id: number, metrics: Family[] }
