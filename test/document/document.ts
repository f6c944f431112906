import pino from 'pino'
import { buildApp } from '../../app.ts'
import { loadConfig } from '../../fastify.config.ts'

/** Returns the OpenAPI document of the service as it is in this folder, as text. No store is needed for it. */
export async function currentDocument (): Promise<string> {
  const config = loadConfig({
    NODE_ENV: 'test',
    WEB_CONCURRENCY: '1',
    DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none',
    JWT_SECRET_KEY: 'a secret that signs nothing, of 32 bytes'
  })
  if (config.database.kind === 'embedded') throw new Error('DATABASE_URL names a database')
  const app = await buildApp({
    config,
    connection: config.database.connection,
    logger: pino({ level: 'silent' })
  })
  try {
    await app.ready()
    return `${JSON.stringify(app.swagger(), null, 2)}\n`
  } finally {
    await app.close()
  }
}
