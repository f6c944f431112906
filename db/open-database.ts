import type { DatabaseConfig, ServerConnection } from '../fastify.config.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { describeServer } from '../services/stores/store-settings.ts'

/** A database that is running, and a function that stops it if it was started here. */
export interface OpenDatabase {
  connection: ServerConnection
  /** Its address for people; never with a password. */
  description: string
  stop (): Promise<void>
  /** The embedded PostgreSQL, where the database is one. */
  embedded?: EmbeddedPostgres
}

/** Returns the configured server, or starts the embedded PostgreSQL. */
export async function openDatabase (config: DatabaseConfig): Promise<OpenDatabase> {
  if (config.kind === 'server') {
    const { connection } = config
    return { connection, description: `PostgreSQL at ${describeServer(connection)}`, stop: async () => {} }
  }
  // Imported only here: production installs do not have the package.
  const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
  const embedded = await startEmbeddedPostgres(config.directory)
  return {
    connection: { connectionString: embedded.url },
    description:
      `embedded PostgreSQL ${embedded.version} (${embedded.origin}; data in ${embedded.directory}; ${embedded.url})`,
    stop: embedded.stop,
    embedded
  }
}
