/** The numbers of one worker, as prom-client writes and merges them. */
export type MetricsOfWorker = object[]

/** What the workers tell the process that supervises them. */
export type ToPrimary =
  | { halo: 'alive' }
  | { halo: 'collect', id: number }
  | { halo: 'metrics', id: number, metrics: MetricsOfWorker }

/** What it tells them. */
export type ToWorker =
  | { halo: 'drain', signal: string }
  | { halo: 'state', running: number, wanted: number }
  | { halo: 'tell', id: number }
  | { halo: 'collected', id: number, metrics: MetricsOfWorker[] }
