import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { freePort } from './free-port.ts'
import { until } from './until.ts'

const binary = '/usr/sbin/pgbouncer'

/**
 * Starts Debian's PgBouncer in front of a server.
 *
 * @returns the URL by way of it; undefined where it is not installed
 */
export async function startPgBouncer (
  t: Test,
  target: string,
  mode: 'session' | 'transaction'
): Promise<string | undefined> {
  try {
    accessSync(binary)
  } catch {
    return undefined
  }
  const folder = mkdtempSync(join(tmpdir(), 'halo-pgbouncer-'))
  chmodSync(folder, 0o755)
  const port = await freePort()
  const { hostname, port: targetPort, username } = new URL(target)
  const users = join(folder, 'users.txt')
  writeFileSync(users, `"${username}" ""\n`)
  const config = join(folder, 'pgbouncer.ini')
  writeFileSync(
    config,
    [
      '[databases]',
      `* = host=${hostname} port=${targetPort || 5432}`,
      '[pgbouncer]',
      'listen_addr = 127.0.0.1',
      `listen_port = ${port}`,
      'unix_socket_dir =',
      'auth_type = trust',
      `auth_file = ${users}`,
      `pool_mode = ${mode}`,
      'default_pool_size = 20',
      'max_client_conn = 200',
      ''
    ].join('\n')
  )
  const child = spawn(binary, [...userInfo().uid === 0 ? ['-u', 'nobody'] : [], config], { stdio: 'ignore' })
  t.teardown(async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null) await once(child, 'exit')
    rmSync(folder, { recursive: true })
  })
  await until('PgBouncer', async () => {
    const socket = connect(port, '127.0.0.1')
    const isUp = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error').then(() => false)])
      .catch(() => false)
    socket.destroy()
    return isUp
  })
  const url = new URL(target)
  url.hostname = '127.0.0.1'
  url.port = String(port)
  return url.href
}
