import t, { type Test } from 'tap'
import { createApp, createDatabase, randomUser, type App } from '../helpers/app.ts'
import { createClient, passTime, type Tokens } from '../helpers/sessions.ts'
import { anyStores } from '../helpers/stores.ts'
import { hasProblem } from '../helpers/problem.ts'

/** A refresh token as the rule in the docs sees it. */
interface ModelToken {
  text: string
  isPresented: boolean
  isRevoked: boolean
  successor: ModelToken | undefined
  /** When its present successor was issued, in seconds of the model. */
  rotatedAt: number
}

type Expected = 'next token' | 'same token' | 'refused' | 'session ends'

const graceSeconds = 10

/** What the rule says about a token that is presented now. */
function expectedOf (token: ModelToken, now: number): Expected {
  if (token.isRevoked) return 'session ends'
  if (!token.isPresented) return 'next token'
  const isInGraceTime = now - token.rotatedAt < graceSeconds
  if (!token.successor!.isPresented) return isInGraceTime ? 'same token' : 'next token'
  return isInGraceTime ? 'refused' : 'session ends'
}

/** A repeatable sequence of numbers from 0 to `below` (mulberry32). */
function createRandom (seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = state + 0x6d2b79f5 | 0
    let mixed = Math.imul(state ^ state >>> 15, 1 | state)
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed
    return ((mixed ^ mixed >>> 14) >>> 0) % below
  }
}

async function register (app: App): Promise<Tokens> {
  const answer = await createClient(app).send('POST', 'register', { payload: randomUser() })
  return answer.json<Tokens>()
}

const modelTokenOf = (text: string): ModelToken => ({
  text,
  isPresented: false,
  isRevoked: false,
  successor: undefined,
  rotatedAt: 0
})

/** Plays one session. @returns what happened, one word a step, for the message of a failure and the coverage */
async function play (t: Test, apps: App[], seed: number): Promise<Expected[]> {
  const random = createRandom(seed)
  let now = 0
  // Three tabs and a thief begin with the same token: one of a login.
  const first = modelTokenOf((await register(apps[0]!)).refresh_token)
  const holders: ModelToken[] = [first, first, first, first]
  const seen: Expected[] = []
  for (let step = 0; step < 40; step++) {
    const action = random(10)
    const holder = random(holders.length)
    if (action === 0) {
      // Tabs read what another has stored; the thief copies.
      holders[holder] = holders[random(holders.length)]!
      continue
    }
    if (action <= 3) {
      // Never near the end of a grace time: sums are 4, 8, 12 and more.
      const seconds = random(3) === 0 ? 12 : 4
      await passTime(apps[0]!, seconds)
      now += seconds
      continue
    }
    const token = holders[holder]!
    const expected = expectedOf(token, now)
    seen.push(expected)
    // A client that repeats its request at the same moment, on two processes.
    const isDouble = action === 4 && (expected === 'next token' || expected === 'same token')
    const answers = await Promise.all(
      (isDouble ? apps : [apps[random(2)]!]).map(app => createClient(app).refresh(token.text))
    )
    const trace = `seed ${seed}, step ${step}: ${seen.join(', ')}`
    const [answer] = answers
    if (expected === 'refused' || expected === 'session ends') {
      hasProblem(t, answer!, 'invalid_refresh_token', {}, trace)
      const { rowCount } = await apps[1]!.pg.query('select from sessions where $1 like \'%\' || id || \'%\'', [first.text])
      t.equal(rowCount, expected === 'refused' ? 1 : 0, trace)
      if (expected === 'session ends') return seen
      continue
    }
    t.strictSame(answers.map(one => one.statusCode), answers.map(() => 200), trace)
    const texts = new Set(answers.map(one => one.json<Tokens>().refresh_token))
    t.equal(texts.size, 1, trace)
    const [text] = [...texts]
    if (expected === 'same token') {
      t.equal(text, token.successor!.text, trace)
    } else {
      t.notOk([token.text, token.successor?.text].includes(text), trace)
      if (token.successor) token.successor.isRevoked = true
      token.isPresented = true
      token.successor = modelTokenOf(text!)
      token.rotatedAt = now
    }
    // One answer in three is lost.
    if (random(3) > 0) holders[holder] = token.successor!
  }
  return seen
}

t.test('tabs, lost answers and a thief, on two processes, get what the rule of refresh tokens says', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const options = { stores, databaseUrl, redisUrl: stores.redisUrl }
  const apps = [await createApp(t, options), await createApp(t, options)]
  const firstSeed = Date.now() % 1_000_000
  const counts: Partial<Record<Expected, number>> = {}
  for (let seed = firstSeed; seed < firstSeed + 80; seed++) {
    for (const outcome of await play(t, apps, seed)) counts[outcome] = (counts[outcome] ?? 0) + 1
  }
  for (const outcome of ['next token', 'same token', 'refused', 'session ends'] as const) {
    t.ok(counts[outcome]! >= 10, `${outcome}: ${counts[outcome]} times`)
  }
})

t.test('a client whose answer was lost refreshes with the old token, hours later', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  const { refresh_token: first } = await register(app)
  const lost = (await client.refresh(first)).json<Tokens>()
  await passTime(app, 7 * 3600)
  const second = await client.refresh(first)
  t.equal(second.statusCode, 200)
  t.not(second.json<Tokens>().refresh_token, lost.refresh_token)
  await passTime(app, 12)
  t.equal((await client.refresh(first)).statusCode, 200, 'it was lost again')
  hasProblem(t, await client.refresh(lost.refresh_token), 'invalid_refresh_token', {}, 'a thief has the first answer')
  t.equal(await client.statusOf(second.json<Tokens>().token), 401, 'which ends the session')
})

t.test('two tabs that use one token twelve seconds apart end the session', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  const { refresh_token: shared } = await register(app)
  const left = (await client.refresh(shared)).json<Tokens>()
  await passTime(app, 12)
  const right = (await client.refresh(shared)).json<Tokens>()
  t.equal(await client.statusOf(right.token), 200)
  hasProblem(t, await client.refresh(left.refresh_token), 'invalid_refresh_token')
  t.equal(await client.statusOf(right.token), 401)
})

t.test('a rotation by the version before, during a rolling update, supersedes nothing', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  const { refresh_token: first } = await register(app)
  await client.refresh(first)
  await passTime(app, 12)
  const second = (await client.refresh(first)).json<Tokens>().refresh_token
  await app.pg.query('update sessions set generation = generation + 1, refreshed_at = now()')
  const third = await client.refresh(second)
  t.equal(third.statusCode, 200, 'the answer of the old version was lost')
})
