/** Imports point one way: server → app → plugins, routes, db → services → schemas. `npm run lint` holds it. */
const only = (from, allowed) => ({
  name: `${from} imports ${allowed.length === 0 ? 'nothing of ours' : `only ${allowed.join(', ')}`}`,
  severity: 'error',
  from: { path: `^${from}/` },
  to: { path: '\\.ts$', pathNot: [from, ...allowed].map(folder => `^${folder}`).concat('node_modules') }
})

export default {
  forbidden: [
    { name: 'no circular imports, of types neither', severity: 'error', from: {}, to: { circular: true } },
    only('schemas', []),
    only('services', ['schemas']),
    only('db', ['services', 'schemas', 'fastify\\.config\\.ts$']),
    only('routes', ['services', 'schemas']),
    only('client', []),
    only('plugins', ['services', 'schemas', 'db', 'fastify\\.config\\.ts$']),
    { name: 'services import no Fastify', severity: 'error', from: { path: '^services/' }, to: { path: 'node_modules/fastify(-plugin)?/' } },
    { name: 'nothing imports what serves tests and benches', severity: 'error', from: { pathNot: '^(?:test|bench)/' }, to: { path: '^(?:test|bench)/' } }
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: ['.ts', '.js'] }
  }
}
