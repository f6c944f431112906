import type { Pool, PoolClient, QueryConfig } from 'pg'
import { ApiError } from '../shared/errors.ts'
import type { BoundedQueue } from '../traffic/bounded-queue.ts'

/** A statement with a name, under which each connection prepares it once. */
export interface Statement {
  name: string
  text: string
}

export interface Database {
  /**
   * Runs one statement on a pooled connection. When the signal is aborted, the statement is cancelled, or never begun.
   *
   * @throws ApiError `server_busy` when too many callers wait for a connection already, or one has waited too long;
   *   `service_unavailable` when the server is away, silent or stopped the statement;
   *   `invalid_request` when a value cannot be kept. Broken constraints come as the database's own error.
   */
  query<Row> (statement: Statement, values?: unknown[], signal?: AbortSignal): Promise<Row[]>
}

export interface DatabaseOptions {
  pool: Pick<Pool, 'connect'>
  /** In front of the pool: how many statements run at once, and how many callers wait. Without one the pool decides. */
  queue?: BoundedQueue
  /** Other connections to the same server, over which statements are stopped. */
  control?: Pick<Pool, 'query'> | undefined
  /** Whether statements are prepared under their names; not through PgBouncer's transaction mode. */
  isPrepared?: boolean
}

/** Values that PostgreSQL refuses to keep: the client's doing. */
const unkeepable = new Set(['22P02', '22021', '22003', '22P05', '22008', '22001'])

/**
 * What an SQLSTATE (PostgreSQL, Appendix A) says of the server, by its class or as a whole. Every one of them is answered
 * 503: the request may succeed later, or elsewhere.
 */
const unable = {
  /** The server is the wrong one, or the connection is broken: all connections made before are replaced. */
  wrongServer: ['08', '25006', '0A000', '57P01', '57P02', '57P03', '58'],
  /** The server is the right one and cannot do it now: full, out of memory, stopped, in conflict, without a right or a table. */
  notNow: ['53', '57', '40', '55', '42501', '42P01', '42703', '42883', '42P05', '26000', 'XX001', 'XX002']
}

const isOneOf = (state: string, states: readonly string[]): boolean => states.some(one => state.startsWith(one))

export function createDatabase ({ pool, queue, control, isPrepared = true }: DatabaseOptions): Database {
  /** When each connection was seen first, and before which moment one is outdated: it leads to a server that is the wrong one. */
  const seenAt = new WeakMap<PoolClient, number>()
  let outdatedBefore = -Infinity

  /** A connection that does not lead to a server that was found to be the wrong one. */
  async function connect (): Promise<PoolClient> {
    for (;;) {
      const client = await pool.connect()
      const since = seenAt.get(client) ?? performance.now()
      seenAt.set(client, since)
      if (since >= outdatedBefore) return client
      client.release(true)
    }
  }

  /** Stops what a connection is doing. Never rejects: a statement that goes on meets its time limit. */
  async function cancel (client: PoolClient): Promise<void> {
    const { processID } = client as PoolClient & { processID?: number }
    await control?.query('select pg_cancel_backend($1)', [processID]).catch(() => {})
  }

  /** Runs a statement on a connection that is this caller's alone. */
  async function run<Row> (client: PoolClient, config: QueryConfig, signal: AbortSignal | undefined): Promise<Row[]> {
    if (signal?.aborted) {
      client.release()
      throw new ApiError('service_unavailable', { message: 'Nobody waits for this any more' })
    }
    let cancelling: Promise<void> | undefined
    const onAbort = (): void => { cancelling = cancel(client) }
    signal?.addEventListener('abort', onAbort)
    try {
      const result = await client.query(config)
      signal?.removeEventListener('abort', onAbort)
      // A connection that is to be stopped is nobody else's before it was.
      if (cancelling) await cancelling
      client.release()
      return result.rows as Row[]
    } catch (error) {
      signal?.removeEventListener('abort', onAbort)
      if (cancelling) await cancelling
      // Not pool.query: that one throws the connection away at every error, a taken username included.
      const isWrongServer = !isAnswer(error) || isOneOf((error as { code: string }).code, unable.wrongServer)
      if (isWrongServer && isAnswer(error)) outdatedBefore = performance.now()
      client.release(isWrongServer)
      throw error
    }
  }

  return {
    async query<Row> ({ name, text }: Statement, values: unknown[] = [], signal?: AbortSignal): Promise<Row[]> {
      const ask = async (): Promise<Row[]> => {
        try {
          return await run<Row>(await connect(), isPrepared ? { name, text, values } : { text, values }, signal)
        } catch (error) {
          throw error instanceof ApiError ? error : translate(error)
        }
      }
      return await (queue ? queue.run(ask) : ask())
    }
  }
}

/** Whether PostgreSQL itself said so (an SQLSTATE) and the connection lives; else it did not answer. */
function isAnswer (error: unknown): boolean {
  const { code, severity } = error as { code?: unknown, severity?: unknown }
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && severity !== 'FATAL'
}

function translate (error: unknown): unknown {
  const code = (error as { code?: unknown }).code
  const state = typeof code === 'string' ? code : ''
  if (unkeepable.has(state)) {
    return new ApiError('invalid_request', { message: 'A value in the request cannot be stored', cause: error })
  }
  if (!isAnswer(error) || isOneOf(state, unable.wrongServer) || isOneOf(state, unable.notNow)) {
    return new ApiError('service_unavailable', { cause: error })
  }
  return error
}
