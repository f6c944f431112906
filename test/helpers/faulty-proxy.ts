import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** A TCP proxy in front of a store that can go away in every way in which a store goes away. */
export interface FaultyProxy {
  /** The store's URL, by way of the proxy. */
  url: string
  /** As if the proxy were not there. */
  forward(): Promise<void>
  /** The process is gone: connections break, new ones are refused. */
  refuse(): Promise<void>
  /** The machine is gone: nothing is answered, nothing is closed, new connections are taken and left alone. */
  silence(): void
  /** Every packet takes this long, in milliseconds. */
  slow(delayMs: number): void
  /** Another server takes the place of this one: connections break, new ones go there. */
  retarget(target: string): void
}

/** Ends what was started: a test, or a program that calls the helpers. */
export interface Owner {
  teardown(end: () => unknown): void
}

export async function createFaultyProxy (t: Owner, target: string, defaultPort: number): Promise<FaultyProxy> {
  let { hostname, port: targetPort } = new URL(target)
  let isSilent = false
  let delayMs = 0
  let server: Server | undefined
  const sockets = new Set<Socket>()

  function pipe (from: Socket, to: Socket): void {
    from.on('data', data => {
      if (isSilent) return
      if (delayMs === 0) to.write(data)
      else {
        setTimeout(() => {
          if (!to.destroyed) to.write(data)
        }, delayMs)
      }
    })
    from.on('close', () => {
      if (!isSilent) to.destroy()
    })
    from.on('error', () => {})
  }

  async function listen (port: number): Promise<number> {
    server = createServer(client => {
      const upstream = connect(Number(targetPort) || defaultPort, hostname)
      for (const socket of [client, upstream]) {
        sockets.add(socket)
        socket.on('close', () => sockets.delete(socket))
      }
      pipe(client, upstream)
      pipe(upstream, client)
    })
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    return (server.address() as { port: number }).port
  }

  function dropAll (): void {
    for (const socket of sockets) socket.destroy()
  }

  const ownPort = await listen(0)
  t.teardown(() => {
    server?.close()
    dropAll()
  })
  const url = new URL(target)
  url.hostname = '127.0.0.1'
  url.port = String(ownPort)

  return {
    url: url.href,
    async forward () {
      delayMs = 0
      if (isSilent) {
        // What was swallowed is lost; both sides find out by a broken connection.
        isSilent = false
        dropAll()
      }
      if (!server?.listening) await listen(ownPort)
    },
    async refuse () {
      server?.close()
      dropAll()
      server = undefined
    },
    silence () {
      isSilent = true
    },
    slow (ms) {
      delayMs = ms
    },
    retarget (other) {
      ;({ hostname, port: targetPort } = new URL(other))
      dropAll()
    }
  }
}
