import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { parse, stringify } from 'yaml'
import { addVideo, createApp, signUp } from '../helpers/app.ts'
import { freePort } from '../helpers/free-port.ts'
import { availableStores } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')
const deploy = join(root, 'deploy', 'prometheus')

interface Rule {
  alert?: string
  expr: string
  labels?: { severity: string }
  annotations?: { summary: string, runbook_url: string }
}
const rules = (parse(readFileSync(join(deploy, 'rules.yaml'), 'utf8')) as { groups: { rules: Rule[] }[] }).groups
  .flatMap(group => group.rules)

t.test('each alert is valid, has a case that fires and one that does not, and a runbook that says what to do', async t => {
  await t.resolves(run('promtool', ['check', 'rules', 'rules.yaml'], { cwd: deploy }))
  await t.resolves(run('promtool', ['check', 'config', 'prometheus.yaml'], { cwd: deploy }))
  await t.resolves(run('promtool', ['test', 'rules', 'rules-test.yaml'], { cwd: deploy }))
  const cases = (parse(readFileSync(join(deploy, 'rules-test.yaml'), 'utf8')) as {
    tests: { alert_rule_test: { alertname: string, exp_alerts: unknown[] }[] }[]
  }).tests.flatMap(one => one.alert_rule_test)
  const runbook = readFileSync(join(root, 'docs', 'OPERATIONS.md'), 'utf8')
  const alerts = rules.filter(({ alert }) => alert !== undefined)
  t.ok(alerts.length >= 10)
  for (const { alert, labels, annotations } of alerts) {
    const own = cases.filter(({ alertname }) => alertname === alert)
    t.ok(own.some(one => one.exp_alerts.length > 0), `${alert}: a case that fires`)
    t.ok(own.some(one => one.exp_alerts.length === 0), `${alert}: a case that does not`)
    t.match(labels!.severity, /^(page|ticket)$/)
    t.equal(annotations!.runbook_url, `docs/OPERATIONS.md#${alert!.toLowerCase()}`)
    const [, text = ''] = runbook.split(`\n### ${alert}\n`)
    const section = text.split('\n### ')[0]!
    for (const part of ['Users see', 'Look at', 'Do', 'Over when']) t.match(section, `**${part}:**`, `${alert}: ${part}`)
  }
})

t.test('Debian’s Prometheus scrapes the service, evaluates the rules, and answers every panel', async t => {
  const stores = availableStores().find(({ redisUrl }) => redisUrl !== null) ?? availableStores()[0]!
  const app = await createApp(t, { stores, env: { METRICS_PORT: '0', RATE_LIMIT_BURST: '400', RATE_LIMIT_RPS: '100' } })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const metrics = `127.0.0.1:${app.metrics.port}`

  const { stdout: text } = await run('curl', ['-sS', `http://${metrics}/metrics`])
  const folder = t.testdir()
  writeFileSync(join(folder, 'metrics.txt'), text)
  await t.resolves(run('bash', ['-c', `promtool check metrics < ${join(folder, 'metrics.txt')}`]), 'promtool check metrics')

  const config = parse(readFileSync(join(deploy, 'prometheus.yaml'), 'utf8')) as {
    global: Record<string, string>
    rule_files: string[]
    scrape_configs: { static_configs: { targets: string[] }[] }[]
  }
  config.global = { scrape_interval: '1s', evaluation_interval: '1s' }
  config.rule_files = [join(deploy, 'rules.yaml')]
  config.scrape_configs[0]!.static_configs = [{ targets: [metrics] }]
  const file = join(folder, 'prometheus.yaml')
  writeFileSync(file, stringify(config))
  const port = await freePort()
  const prometheus = spawn('prometheus', [
    `--config.file=${file}`,
    `--storage.tsdb.path=${join(folder, 'data')}`,
    `--web.listen-address=127.0.0.1:${port}`,
    '--log.level=warn'
  ], { stdio: ['ignore', 'ignore', 'pipe'] })
  let output = ''
  prometheus.stderr.on('data', data => { output += String(data) })
  t.teardown(async () => {
    prometheus.kill()
    if (prometheus.exitCode === null) await once(prometheus, 'exit')
  })
  const query = async (expression: string): Promise<{ metric: Record<string, string>, value: [number, string] }[]> => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`)
    const { status, error, data } = await answer.json() as {
      status: string
      error?: string
      data: { result: { metric: Record<string, string>, value: [number, string] }[] }
    }
    if (status !== 'success') throw new Error(error)
    return data.result
  }
  await until('a scrape', async () => {
    if (prometheus.exitCode !== null) throw new Error(output)
    return (await query('up{job="halo-api"} == 1').catch(() => [])).length > 0
  })

  // Some of everything, while it is scraped.
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const traffic = async (): Promise<void> => {
    for (let n = 0; n < 10; n++) {
      await fetch(`${address}/api/v1/videos/${id}`)
      await fetch(`${address}/api/v1/videos/${id}/engagement/likes`, { method: 'POST', headers: authorization })
      await fetch(`${address}/api/v1/videos/${id}/engagement/likes`, { method: 'DELETE', headers: authorization })
      await fetch(`${address}/api/v1/auth/me`, { headers: authorization })
      await fetch(`${address}/api/v1/auth/login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"email":"nobody@halo.example","password":"wrong"}'
      })
    }
  }
  for (let round = 0; round < 8; round++) {
    await traffic()
    await new Promise(resolve => setTimeout(resolve, 1000))
  }

  const boards = ['users', 'inside'].map(name =>
    JSON.parse(readFileSync(join(root, 'deploy', 'grafana', `${name}.json`), 'utf8')) as {
      panels: { title: string, targets: { expr: string }[] }[]
    })
  const isRedis = stores.redisUrl !== null
  for (const { title, targets } of boards.flatMap(board => board.panels)) {
    for (const { expr } of targets) {
      if (!isRedis && expr.includes('redis_command')) continue
      await until(`${title}: ${expr}`, async () => (await query(expr)).some(({ value }) => value[1] !== 'NaN'))
      t.pass(`${title}: ${expr}`)
    }
  }
  const { data } = await (await fetch(`http://127.0.0.1:${port}/api/v1/rules`)).json() as {
    data: { groups: { rules: { name: string, health: string, lastError?: string }[] }[] }
  }
  const evaluated = data.groups.flatMap(group => group.rules)
  t.equal(evaluated.length, rules.length)
  for (const { name, health, lastError } of evaluated) t.equal(health, 'ok', `${name} ${lastError ?? ''}`)
  t.strictSame((await query('ALERTS{alertstate="firing"}')).map(({ metric }) => metric['alertname']), [], 'and no alert fires')
})
