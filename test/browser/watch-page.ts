import { createServer } from 'node:http'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { seed } from '../../db/seed.ts'
import { createApp, createDatabase } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'
import { complaintsOf, startBrowser } from './browser.ts'

t.test('the watch page of docs/INTEGRATION.md, from another origin: log in, be counted, like', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  await seed({ connectionString: databaseUrl }, { users: 10, videos: 10 })
  const app = await createApp(t, { stores, databaseUrl, env: { CORS_ALLOWED_ORIGINS: '*' } })
  const service = await app.listen({ host: '127.0.0.1', port: 0 })
  const files = createServer((request, response) => {
    response.setHeader('content-type', 'text/html')
    response.end(readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'examples', 'watch.html')))
  }).listen(0, '127.0.0.1')
  await once(files, 'listening')
  t.teardown(() => files.close())

  const page = await (await startBrowser(t)).newPage()
  const complaints = complaintsOf(page)
  const { port } = files.address() as AddressInfo
  await page.goto(`http://127.0.0.1:${port}/watch.html?video=1&service=${encodeURIComponent(service)}`)
  const shows = (id: string, text: string) => page.locator(`#${id}`).filter({ hasText: new RegExp(`^${text}$`) }).waitFor()
  await shows('viewers', '0')
  await page.getByRole('button', { name: 'Log in' }).click()
  await shows('viewers', '1')
  await page.getByRole('button', { name: 'Like', exact: true }).click()
  await shows('likes', '1')
  await page.getByRole('button', { name: 'Unlike' }).click()
  await shows('likes', '0')
  await page.getByRole('button', { name: 'Comment' }).click()
  await shows('comments', '1')
  await page.reload()
  await shows('viewers', '1')
  await page.getByRole('button', { name: 'Log out' }).click()
  await shows('viewers', '0')
  t.strictSame(complaints, [], 'and the browser has nothing to complain about')
})
