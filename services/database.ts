import type { Pool } from 'pg'
import { ApiError } from './errors.ts'

/** A statement with a name, under which each connection prepares it once. */
export interface Statement {
  name: string
  text: string
}

export interface Database {
  /**
   * Runs one statement on a pooled connection.
   *
   * @throws ApiError `server_busy` when too many callers wait for a connection already;
   *   `service_unavailable` when the server is away, silent or stopped the statement;
   *   `invalid_request` when a value cannot be kept. Broken constraints come as the database's own error.
   */
  query<Row> (statement: Statement, values?: unknown[]): Promise<Row[]>
}

export interface DatabaseOptions {
  pool: Pick<Pool, 'connect' | 'waitingCount'>
  /** Callers that may wait for a connection; one more is refused at once. */
  maxWaiting: number
}

/** Values that PostgreSQL refuses to keep: the client's doing. */
const unkeepable = new Set(['22P02', '22021', '22003', '22P05', '22008', '22001'])

/** Statements that were stopped, and servers that are full, starting or stopping: over in a moment. */
const transient = new Set(['57014', '53300', '53400', '57P01', '57P02', '57P03', '40001', '40P01', '55P03', '25006'])

/** A schema that is not the one that this version needs; `/readyz` says so. */
const unmigrated = new Set(['42P01', '42703'])

export function createDatabase ({ pool, maxWaiting }: DatabaseOptions): Database {
  return {
    async query<Row> ({ name, text }: Statement, values: unknown[] = []): Promise<Row[]> {
      if (pool.waitingCount >= maxWaiting) throw new ApiError('server_busy')
      const client = await pool.connect().catch((error: unknown) => { throw translate(error) })
      try {
        const result = await client.query({ name, text, values })
        client.release()
        return result.rows as Row[]
      } catch (error) {
        // Not pool.query: that one throws the connection away at every error, a taken username included.
        client.release(isAnswer(error) ? undefined : error as Error)
        throw translate(error)
      }
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
  if (!isAnswer(error) || state.startsWith('08') || transient.has(state) || unmigrated.has(state)) {
    return new ApiError('service_unavailable', { cause: error })
  }
  return error
}
