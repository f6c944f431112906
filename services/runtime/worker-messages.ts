/** The metrics of one worker, in prom-client's format. */
export type MetricsOfWorker = object[]

/** Messages from a worker to the supervisor. */
export type ToPrimary =
  | { halo: 'alive' }
  | { halo: 'collect', id: number }
  | { halo: 'metrics', id: number, metrics: MetricsOfWorker }

/** Messages from the supervisor to a worker. */
export type ToWorker =
  | { halo: 'drain', signal: string }
  | { halo: 'state', running: number, wanted: number }
  | { halo: 'tell', id: number }
  | { halo: 'collected', id: number, metrics: MetricsOfWorker[] }
