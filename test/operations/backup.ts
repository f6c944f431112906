import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import t from 'tap'
import { addVideo, createApp, createDatabase, signUp } from '../helpers/app.ts'
import { availableStores, didNotRun } from '../helpers/stores.ts'
import { emptyTestDatabase } from '../helpers/test-marker.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')

/** What pg_dump says when it is older than the server. */
const mismatch = /server version mismatch|ENOENT/

t.test('a dump under load, restored elsewhere with an empty Redis, is a whole service again', async t => {
  const stores = availableStores().find(({ redisUrl }) => redisUrl !== null)
  if (!stores) return didNotRun(t, 'it needs a Redis')
  const databaseUrl = await createDatabase(t, stores)
  const folder = t.testdir()
  const asReader = ['-i', `PATH=${process.env['PATH']}`, `HOME=${process.env['HOME']}`]
  const dumped = `cd ${folder} && pg_dump --format=custom --file=halo.dump "$DATABASE_URL"`
  const dump = (): Promise<unknown> => run('env', [...asReader, `DATABASE_URL=${databaseUrl}`, 'bash', '-c', dumped])
  const isPossible = await dump().then(() => true, (error: unknown) => {
    if (mismatch.test(String(error))) return false
    throw error
  })
  if (!isPossible) return didNotRun(t, 'there is no pg_dump of the version of the server: name one by TEST_DATABASE_URL')

  const app = await createApp(t, { stores, databaseUrl })
  const { user, authorization } = await signUp(app)
  const videos = [await addVideo(app, user.id), await addVideo(app, user.id)]
  const load = { isOver: false }
  let sent = 0
  const sendUntilOver = async (): Promise<void> => {
    while (!load.isOver) {
      const id = videos[sent++ % 2]!
      const { statusCode } = await app.inject({
        method: 'POST',
        url: `/api/v1/videos/${id}/engagement/${sent % 3 ? 'comments' : 'likes'}`,
        headers: authorization
      })
      if (statusCode !== 200) throw new Error(`answered ${statusCode}`)
    }
  }
  const loading = sendUntilOver()
  await new Promise(resolve => setTimeout(resolve, 1500))
  await dump()
  load.isOver = true
  await loading
  await app.close()

  // Elsewhere: another database, and a Redis that has lost everything.
  const target = await createDatabase(t, stores, { isMigrated: false })
  await run('env', [...asReader, `DATABASE_URL=${target}`, 'bash', '-c', `cd ${folder} && pg_restore --no-owner --dbname="$DATABASE_URL" halo.dump`])
  const redis = new Redis(stores.redisUrl!)
  await emptyTestDatabase(redis)
  redis.disconnect()

  const restored = await createApp(t, { stores, databaseUrl: target })
  const before = (await restored.inject(`/api/v1/videos/${videos[0]}`)).json<{ comment_count: number }>()
  t.ok(before.comment_count > 0 && before.comment_count <= sent, `${before.comment_count} comments of ${sent} requests`)
  const again = await restored.inject({
    method: 'POST',
    url: `/api/v1/videos/${videos[0]}/engagement/comments`,
    headers: authorization
  })
  t.equal(again.statusCode, 200, 'the session is valid there')
  t.equal(again.json<{ data: { comment_count: number } }>().data.comment_count, before.comment_count + 1)
  await restored.counters.flusher.flush({ isForced: true })
  await restored.close()
  const { stdout } = await run('env', [
    ...asReader, `DATABASE_URL=${target}`, `REDIS_URL=${stores.redisUrl}`, 'npm', 'run', '--silent', 'counters:verify'
  ], { cwd: root })
  t.match(stdout, /\d/, stdout.trim())
})
