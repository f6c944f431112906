import { loadConfig } from '../fastify.config.ts'
import { readCommandLine, readCount } from '../services/runtime/command-line.ts'
import { ConfigurationError } from '../services/runtime/configuration-error.ts'
import { migrate } from './migrate.ts'
import { openDatabase } from './open-database.ts'
import { demoLogin } from './seed-data.ts'
import { seed } from './seed.ts'

const usage = `Usage: npm run seed -- [--users 1000] [--videos 20000]

Adds sample data up to the wanted size, and a login; safe to run twice. Not in production.
`
const { values } = readCommandLine({
  usage,
  options: { users: { type: 'string', default: '1000' }, videos: { type: 'string', default: '20000' } }
})
const users = readCount('users', values.users, { min: 1, max: 10_000_000 })
const videos = readCount('videos', values.videos, { min: 0, max: 10_000_000 })

/** `npm run seed`: adds sample data up to the wanted size; safe to run twice. */
try {
  const config = loadConfig(process.env)
  if (config.environment === 'production') {
    throw new ConfigurationError([
      'NODE_ENV is production: sample data, with a login that everybody knows, does not go there'
    ])
  }
  const database = await openDatabase(config.database)
  process.stdout.write(`Seeding ${database.description}\n`)
  try {
    await migrate(database.connection)
    const startedAt = performance.now()
    const { addedUsers, addedVideos } = await seed(database.connection, { users, videos, onProgress: showProgress })
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
    process.stdout.write(
      addedUsers + addedVideos > 0
        ? `Added ${addedUsers} users and ${addedVideos} videos in ${seconds} s.\n`
        : 'Everything is there already; nothing was added.\n'
    )
    process.stdout.write(`Log in with ${demoLogin.email} and ${demoLogin.password}\n`)
  } finally {
    await database.stop()
  }
} catch (error) {
  process.stderr.write(
    `${error instanceof ConfigurationError ? error.message : `Nothing was added: ${(error as Error).message}`}\n`
  )
  process.exitCode = 1
}

function showProgress (done: number, total: number): void {
  const share = done / total
  if (process.stderr.isTTY) {
    const bar = '█'.repeat(Math.round(share * 30)).padEnd(30, '░')
    process.stderr.write(
      `\r  ${bar} ${Math.round(share * 100)} %  ${done} of ${total} videos${done === total ? '\n' : ''}`
    )
  } else if (done === total || Math.floor(share * 10) > Math.floor((done - 5000) / total * 10)) {
    process.stderr.write(`  ${Math.round(share * 100)} %  ${done} of ${total} videos\n`)
  }
}
