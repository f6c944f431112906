import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'
import t from 'tap'
import { createApp } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)

/** `npm run test:browser`: the one thing that only a browser can show. */
t.test('the API page loads in Chromium and runs a request', async t => {
  if (!executablePath) throw new Error('Chromium is not installed: apt-get install chromium')
  const app = await createApp(t, { stores: anyStores() })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const browser = await chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync'
    ]
  })
  t.teardown(() => browser.close())
  const page = await browser.newPage()
  const complaints: string[] = []
  page.on('console', message => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  page.on('pageerror', error => complaints.push(error.message))
  await page.goto(`${address}/docs`)
  await page.getByText('/api/v1/auth/register').waitFor()
  t.equal(await page.title(), 'HALO API')

  await page.locator('#operations-operations-getLiveness button.opblock-summary-control').click()
  await page.locator('#operations-operations-getLiveness button.execute').click()
  const answer = page.locator('#operations-operations-getLiveness .live-responses-table tbody')
  await answer.first().waitFor()
  t.match(await answer.first().innerText(), /"status": "alive"/)
  t.strictSame(complaints, [], 'and the browser has nothing to complain about')
})
