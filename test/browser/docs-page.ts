import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { seed } from '../../db/seed.ts'
import { createApp, createDatabase, randomUser } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'
import { complaintsOf, startBrowser } from './browser.ts'

interface Operation {
  operationId: string
  tags: string[]
  security: object[]
  responses: Record<string, object>
}

/** After these the token, or the user, is no more: they are tried with a user of their own. */
const destructive = ['logout', 'logoutAll', 'deleteAccount', 'changePassword', 'endSession']

t.test('on the API page, Execute of every operation answers 2xx or an error that it documents', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  await seed({ connectionString: databaseUrl }, { users: 50, videos: 60 })
  const app = await createApp(t, { stores, databaseUrl })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const { paths } = (await app.inject('/openapi.json')).json<{ paths: Record<string, Record<string, Operation>> }>()
  const operations = Object.values(paths).flatMap(methods => Object.values(methods))
  const page = await (await startBrowser(t)).newPage({ viewport: { width: 1400, height: 1200 } })
  const complaints = complaintsOf(page)
  await page.goto(`${address}/docs`)
  await page.locator('#operations-auth-register').waitFor()
  t.equal(await page.title(), 'HALO API')
  mkdirSync(join('.tap', 'screenshots'), { recursive: true })
  await page.screenshot({ path: join('.tap', 'screenshots', 'docs.png') })

  async function authorize (email: string): Promise<void> {
    const login = await app.inject({
      method: 'POST',
      url: '/api/v1/auth/login',
      payload: { email, password: 'password123' }
    })
    // The page keeps the token of before.
    await page.evaluate('localStorage.clear()')
    await page.reload()
    await page.getByRole('button', { name: 'Authorize' }).first().click()
    await page.locator('#auth-bearer-value').fill(login.json<{ token: string }>().token)
    await page.locator('.auth-btn-wrapper .authorize').click()
    await page.locator('.auth-btn-wrapper .btn-done').click()
  }

  async function execute ({ operationId, tags: [tag], responses }: Operation): Promise<string> {
    const block = page.locator(`#operations-${tag}-${operationId}`)
    await block.locator('.opblock-summary-control').click()
    const button = block.locator('button.execute')
    await button.waitFor()
    t.notMatch(await block.innerText(), /`/, `${operationId}: no raw backticks`)
    await button.click()
    const status = block.locator('.live-responses-table .response-col_status').last()
    await status.waitFor({ timeout: 15_000 })
    const code = (await status.innerText()).slice(0, 3)
    t.ok(code in responses, `${operationId} answers ${code}: ${Object.keys(responses).join()}`)
    await block.locator('.opblock-summary-control').click()
    return code
  }

  const codes: Record<string, string> = {}
  await authorize('demo@halo.example')
  for (const operation of operations) {
    if (!destructive.includes(operation.operationId)) codes[operation.operationId] = await execute(operation)
  }
  for (const operation of operations.filter(({ operationId }) => destructive.includes(operationId))) {
    const person = { ...randomUser(), password: 'password123' }
    await app.inject({ method: 'POST', url: '/api/v1/auth/register', payload: person })
    await authorize(person.email)
    codes[operation.operationId] = await execute(operation)
  }
  const expected = {
    listVideos: '200',
    listVideosOfUser: '200',
    listCounters: '200',
    streamCounters: '200',
    publishVideo: '201',
    register: '201',
    login: '200',
    getAccount: '200',
    updateAccount: '200',
    likeVideo: '200',
    countComment: '200',
    changePassword: '204',
    logout: '204',
    deleteAccount: '204',
    refreshTokens: '401',
    endSession: '404'
  }
  t.match(codes, expected)
  t.equal(Object.keys(codes).length, operations.length)
  t.strictSame(complaints, [], 'and the browser has nothing to complain about')
})
