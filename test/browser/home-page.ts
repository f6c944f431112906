import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import t from 'tap'
import { seed } from '../../db/seed.ts'
import { createApp, createDatabase } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'
import { complaintsOf, startBrowser } from './browser.ts'

/** Screenshots for a person to look at. */
const screenshots = join(import.meta.dirname, '..', '..', '.tap', 'screenshots')

const counter = (page: Page, name: string) => page.locator(`.player [data-counter=${name}]`)

/** Waits until a number is shown. @returns milliseconds that it took */
async function shows (page: Page, name: string, text: string): Promise<number> {
  const startedAt = performance.now()
  await counter(page, name).filter({ hasText: new RegExp(`^${text}$`) }).waitFor({ timeout: 10_000 })
  return performance.now() - startedAt
}

t.test('two people at the first page see each other’s likes, comments and presence within two seconds', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  await seed({ connectionString: databaseUrl }, { users: 10, videos: 60 })
  const app = await createApp(t, {
    stores,
    databaseUrl,
    env: { RATE_LIMIT_RPS: '1000', RATE_LIMIT_BURST: '2000' }
  })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const browser = await startBrowser(t)
  mkdirSync(screenshots, { recursive: true })
  const [ada, bob] = await Promise.all([1, 2].map(async () => await (await browser.newContext()).newPage()))
  const complaints = [ada!, bob!].map(complaintsOf)

  await ada!.goto(address)
  await ada!.locator('.card').first().waitFor()
  t.equal(await ada!.locator('.card').count(), 18)
  await ada!.getByRole('button', { name: 'Log in as the demo user' }).click()
  await ada!.getByRole('button', { name: 'Log out' }).waitFor()
  await ada!.screenshot({ path: join(screenshots, 'list.png') })

  await ada!.getByLabel('Title of your stream').fill('Stream of <b>Ada</b>')
  await ada!.getByRole('button', { name: 'Go live' }).click()
  await ada!.locator('.player').waitFor()
  t.equal(await ada!.locator('.player h1').innerText(), 'Stream of <b>Ada</b>', 'titles are text')
  await shows(ada!, 'live_viewers', '1')

  await bob!.goto(address)
  await bob!.getByRole('button', { name: 'Register somebody new' }).click()
  await bob!.getByRole('button', { name: 'Log out' }).waitFor()
  await bob!.getByText('Stream of <b>Ada</b>').click()
  await bob!.locator('.player').waitFor()
  t.ok(await shows(ada!, 'live_viewers', '2') < 2000, 'Ada sees that Bob watches')
  await bob!.getByRole('button', { name: 'Like', exact: true }).click()
  t.ok(await shows(ada!, 'like_count', '1') < 2000, 'Ada sees the like')
  await shows(bob!, 'like_count', '1')
  await ada!.getByRole('button', { name: 'Comment' }).click()
  t.ok(await shows(bob!, 'comment_count', '1') < 2000, 'Bob sees the comment')
  await bob!.screenshot({ path: join(screenshots, 'video.png') })
  await bob!.getByRole('button', { name: 'Take the like back' }).click()
  t.ok(await shows(ada!, 'like_count', '0') < 2000, 'Ada sees that it was taken back')

  await bob!.goto('about:blank')
  t.ok(await shows(ada!, 'live_viewers', '1') < 2000, 'Ada sees that Bob has left the page')
  await ada!.reload()
  await ada!.getByRole('button', { name: 'Log out' }).waitFor()
  await ada!.getByRole('button', { name: 'End the stream' }).click()
  await ada!.locator('.badge.recorded').waitFor()

  await ada!.getByRole('button', { name: 'Send a bad request' }).click()
  await ada!.locator('#problem').filter({ hasText: 'invalid_request' }).waitFor()
  await ada!.getByRole('button', { name: 'Use up the rate limit' }).click()
  await ada!.locator('#problem').filter({ hasText: 'rate_limit_exceeded' }).waitFor()
  t.match(await ada!.locator('#problem').innerText(), /\d+ requests, [1-9]\d* refused\nRetry-After: \d/)
  await ada!.screenshot({ path: join(screenshots, 'limits.png') })
  t.strictSame(complaints, [[], []], 'and the browsers have nothing to complain about')
})

t.test('without sample data the first page says where to get some', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const page = await (await startBrowser(t)).newPage()
  await page.goto(address)
  await page.getByText('npm run seed').waitFor()
  await page.getByRole('button', { name: 'Log in as the demo user' }).click()
  await page.getByText('Invalid email or password (invalid_credentials). The demo user comes with').waitFor()
})
