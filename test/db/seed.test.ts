import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import { seed } from '../../db/seed.ts'
import { demoLogin, seedVideo } from '../../db/seed-data.ts'
import { createApp, createDatabase, runSql } from '../helpers/app.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

const count = async (url: string, table: string) =>
  Number((await runSql(url, `select count(*) from ${table}`))[0]!['count'])

onEachStore(t, 'seed fills a database to its sizes, and a second run adds nothing', async (t, stores) => {
  const url = await createDatabase(t, stores)
  const progress: number[] = []
  const sizes = { users: 50, videos: 600 }
  t.strictSame(
    await seed({ connectionString: url }, {
      ...sizes,
      onProgress: done => {
        progress.push(done)
      }
    }),
    { addedUsers: 50, addedVideos: 600 }
  )
  t.equal(progress.at(-1), 600)
  t.strictSame(await seed({ connectionString: url }, sizes), { addedUsers: 0, addedVideos: 0 })
  t.strictSame(
    await seed({ connectionString: url }, { users: 60, videos: 610 }),
    { addedUsers: 10, addedVideos: 10 },
    'a larger one adds what is missing'
  )
  t.equal(await count(url, 'users'), 60)
  t.equal(await count(url, 'videos'), 610)
  t.equal(await count(url, 'videos where is_live'), 61, 'a tenth is live')
  t.ok(await count(url, 'videos where length(title) = 255') > 0)
  t.ok(await count(url, "videos where title ~ '[\\u0600-\\u06FF]'") > 0, 'right-to-left titles')
  t.ok(await count(url, "videos where title ~ '\\U0001F3AE'") > 0, 'titles with emoji')

  const app = await createApp(t, { stores, databaseUrl: url })
  const login = await app.inject({ method: 'POST', url: '/api/v1/auth/login', payload: demoLogin })
  t.equal(login.statusCode, 200, 'the demo login works')
  t.equal((await app.inject('/api/v1/videos?limit=100')).json().length, 100)
})

t.test('two seeds at once, and one beside rows of others, add each row once', async t => {
  const url = await createDatabase(t, anyStores())
  await runSql(url, "insert into users (email, username, password_hash) values ('a@example.com', 'somebody', 'x')")
  await runSql(url, "insert into videos (user_id, title) select id, 'theirs' from users")
  await Promise.all([1, 2, 3].map(() => seed({ connectionString: url }, { users: 5, videos: 100 })))
  t.equal(await count(url, 'users'), 6)
  t.equal(await count(url, 'videos'), 101)
})

t.test('row n is the same whenever it is made', async t => {
  const now = Date.now()
  t.strictSame(seedVideo(123, 50, now), seedVideo(123, 50, now))
  for (let n = 0; n < 2000; n++) {
    const { title } = seedVideo(n, 50, now)
    if (title.length < 1 || [...title].length > 255 || !title.isWellFormed()) t.fail(`title ${n}: ${title}`)
  }
  t.pass('every title is one that the API would take')
})

t.test('the command prints the demo login, and names what is wrong with its sizes', async t => {
  const url = await createDatabase(t, anyStores())
  const command = async (...args: string[]) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, '..', '..', 'db', 'seed-cli.ts'), ...args], {
      env: { ...process.env, DATABASE_URL: url }
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', data => {
        output += String(data)
      })
    }
    const [code] = await once(child, 'close') as [number]
    return { code, output }
  }
  const good = await command('--users', '3', '--videos', '20')
  t.equal(good.code, 0)
  t.match(good.output, /Added 3 users and 20 videos in [\d.]+ s\.\nLog in with demo@halo\.example and password123\n$/)
  t.match((await command('--users', '3', '--videos', '20')).output, /nothing was added/)
  for (const args of [['--users', '0'], ['--videos', '-1'], ['--videos', '1e3'], ['--sizes', '1'], ['many']]) {
    const { code, output } = await command(...args)
    t.equal(code, 2, args.join(' '))
    t.match(output, /^[^\n]+; see --help\n$/)
  }
})
