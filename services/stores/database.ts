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
   * @throws ApiError `server_busy` when the queue is full, or the statement has waited too long;
   *   `service_unavailable` when the server is unavailable, does not answer, or cancelled the statement;
   *   `invalid_request` for a value that
   * PostgreSQL cannot
   *   store. Violated constraints are the database's own error.
   */
  query<Row> (statement: Statement, values?: unknown[], signal?: AbortSignal): Promise<Row[]>
}

export interface DatabaseOptions {
  pool: Pick<Pool, 'connect'>
  /** In front of the pool: how many statements run at once, and how many callers wait. Without one the pool decides. */
  queue?: BoundedQueue
  /** Other connections to the same server, over which statements are stopped. */
  control?: Pick<Pool, 'query'> | undefined
  /** Called for each statement that has ended, with the seconds that it waited for a connection and that it took. */
  onStatement?: (name: string, waited: number, took: number) => void
  /** Whether statements are prepared under their names; not through PgBouncer's transaction mode. */
  isPrepared?: boolean
}

/** SQLSTATEs of values that PostgreSQL cannot store: the client's fault. */
const unkeepable = new Set(['22P02', '22021', '22003', '22P05', '22008', '22001'])

/**
 * SQLSTATEs (PostgreSQL, Appendix A), by class or in full, that mean that the server cannot run the statement. All
 * are answered 503: the request may succeed later, or on another server.
 */
const unable = {
  /** Wrong server, or broken connection: all connections that were opened before are replaced. */
  wrongServer: ['08', '25006', '0A000', '57P01', '57P02', '57P03', '58'],
  /** Right server, but it cannot do it now: full, out of memory, stopping, in conflict, a missing right or table. */
  notNow: ['53', '57', '40', '55', '42501', '42P01', '42703', '42883', '42P05', '26000', 'XX001', 'XX002']
}

const isOneOf = (state: string, states: readonly string[]): boolean => states.some(one => state.startsWith(one))

export function createDatabase ({ pool, queue, control, onStatement, isPrepared = true }: DatabaseOptions): Database {
  /** When each connection was first used. Connections from before `outdatedBefore` lead to a wrong server. */
  const seenAt = new WeakMap<PoolClient, number>()
  let outdatedBefore = -Infinity

  /** Returns a connection that was opened after the last wrong server was found. */
  async function connect (): Promise<PoolClient> {
    for (;;) {
      const client = await pool.connect()
      const since = seenAt.get(client) ?? performance.now()
      seenAt.set(client, since)
      if (since >= outdatedBefore) return client
      client.release(true)
    }
  }

  /** Cancels the statement of a connection. Never rejects: a statement that goes on runs into its time limit. */
  async function cancel (client: PoolClient): Promise<void> {
    const { processID } = client as PoolClient & { processID?: number }
    await control?.query('select pg_cancel_backend($1)', [processID]).catch(() => {})
  }

  /** Runs a statement on a connection that no other caller uses. */
  async function run<Row> (client: PoolClient, config: QueryConfig, signal: AbortSignal | undefined): Promise<Row[]> {
    if (signal?.aborted) {
      client.release()
      throw new ApiError('service_unavailable', { message: 'The client has left: the statement was cancelled' })
    }
    let cancelling: Promise<void> | undefined
    const onAbort = (): void => {
      cancelling = cancel(client)
    }
    signal?.addEventListener('abort', onAbort)
    try {
      const result = await client.query(config)
      signal?.removeEventListener('abort', onAbort)
      // A connection is not released before its cancellation has ended: it would hit the next statement.
      if (cancelling) await cancelling
      client.release()
      return result.rows as Row[]
    } catch (error) {
      signal?.removeEventListener('abort', onAbort)
      if (cancelling) await cancelling
      // Not pool.query: it closes the connection after every error, also after a violated constraint.
      const isWrongServer = !isAnswer(error) || isOneOf((error as { code: string }).code, unable.wrongServer)
      if (isWrongServer && isAnswer(error)) outdatedBefore = performance.now()
      client.release(isWrongServer)
      throw error
    }
  }

  return {
    async query<Row> ({ name, text }: Statement, values: unknown[] = [], signal?: AbortSignal): Promise<Row[]> {
      const ask = async (): Promise<Row[]> => {
        const startedAt = performance.now()
        let connectedAt = NaN
        try {
          const client = await connect()
          connectedAt = performance.now()
          return await run<Row>(client, isPrepared ? { name, text, values } : { text, values }, signal)
        } catch (error) {
          throw error instanceof ApiError ? error : translate(error)
        } finally {
          const endedAt = performance.now()
          // Without a connection there was no statement.
          if (Number.isNaN(connectedAt)) onStatement?.('', (endedAt - startedAt) / 1000, 0)
          else onStatement?.(name, (connectedAt - startedAt) / 1000, (endedAt - connectedAt) / 1000)
        }
      }
      return await (queue ? queue.run(ask) : ask())
    }
  }
}

/**
 * Whether PostgreSQL reported the error itself (an SQLSTATE) and the connection is usable; otherwise it did not
 * answer.
 */
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
