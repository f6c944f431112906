import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from './free-port.ts'

const run = promisify(execFile)

export interface ReplicatedPostgres {
  primaryUrl: string
  replicaUrl: string
  /** As `kill -9` of the replica. */
  killReplica(): Promise<void>
  startReplica(): Promise<void>
  stop(): Promise<void>
}

/**
 * A primary and its streaming replica on loopback, from Debian's packages: the embedded PostgreSQL brings no
 * pg_basebackup. Undefined where they are not installed.
 */
export async function startReplicatedPostgres (): Promise<ReplicatedPostgres | undefined> {
  const versions = await readdir('/usr/lib/postgresql').catch(() => [])
  const version = versions.sort((a, b) => Number(b) - Number(a))[0]
  if (version === undefined) return undefined
  const bin = (name: string): string => join('/usr/lib/postgresql', version, 'bin', name)

  // PostgreSQL refuses to run as root.
  let identity: { uid?: number, gid?: number } = {}
  if (userInfo().uid === 0) {
    const [uid, gid] = await Promise.all(
      ['-u', '-g'].map(async flag => Number((await run('id', [flag, 'postgres'])).stdout))
    )
    identity = { uid, gid } as { uid: number, gid: number }
  }
  const folder = await mkdtemp(join(tmpdir(), 'halo-replicated-'))
  if (identity.uid !== undefined) await chown(folder, identity.uid, identity.gid!)
  const options = { ...identity, cwd: folder }
  const [primary, replica] = [join(folder, 'primary'), join(folder, 'replica')]
  const [primaryPort, replicaPort] = [await freePort(), await freePort()]
  // Without pipes: the server would keep them open, and pg_ctl never seem to end.
  const start = async (data: string, port: number): Promise<void> => {
    const child = spawn(bin('pg_ctl'), [
      'start',
      '-D',
      data,
      '-l',
      `${data}.log`,
      '-w',
      '-o',
      `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off`
    ], { ...options, stdio: 'ignore' })
    const [code] = await once(child, 'exit') as [number | null]
    if (code !== 0) throw new Error(`The PostgreSQL in ${data} did not start`)
  }
  const stop = (data: string): Promise<unknown> =>
    run(bin('pg_ctl'), ['stop', '-D', data, '-m', 'immediate', '-w'], options).catch(() => {})

  await run(bin('initdb'), ['-D', primary, '-U', 'postgres', '--auth=trust', '--encoding=UTF8', '--locale=C'], options)
  await start(primary, primaryPort)
  await run(bin('pg_basebackup'), [
    '-h',
    '127.0.0.1',
    '-p',
    String(primaryPort),
    '-U',
    'postgres',
    '-D',
    replica,
    '-R',
    '-X',
    'stream',
    '-c',
    'fast'
  ], options)
  await start(replica, replicaPort)
  return {
    primaryUrl: `postgres://postgres@127.0.0.1:${primaryPort}/postgres`,
    replicaUrl: `postgres://postgres@127.0.0.1:${replicaPort}/postgres`,
    killReplica: async () => {
      await stop(replica)
    },
    startReplica: () => start(replica, replicaPort),
    async stop () {
      await stop(replica)
      await stop(primary)
      await rm(folder, { recursive: true, force: true })
    }
  }
}
