import fp from 'fastify-plugin'
import type { Config } from '../fastify.config.ts'

declare module 'fastify' {
  interface FastifyInstance {
    config: Readonly<Config>
  }
}

/** Decorates the configuration, and logs its warnings. */
export default fp<{ config: Readonly<Config> }>(async function config (app, options) {
  app.decorate('config', options.config)
  for (const warning of options.config.warnings) app.log.warn(warning)
}, { name: 'halo:config' })
