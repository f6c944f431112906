import type { Socket } from 'node:net'
import fp from 'fastify-plugin'
import { createStalledClients } from '../services/traffic/stalled-clients.ts'

/**
 * Cuts off clients that ask and do not take what they are answered: those that have not taken within SERVER_WRITE_TIMEOUT what
 * was there for them. The idle timeout of the sockets does not find them, for which a byte now and then is enough. It
 * looks at all connections in turn, so that an answer costs nothing.
 */
export default fp(async function slowReaders (app) {
  const { writeTimeoutMs } = app.config.server
  const untaken = createStalledClients<Socket>({ timeoutMs: writeTimeoutMs })

  function forget (this: Socket): void {
    untaken.delete(this)
  }

  app.server.on('connection', (socket: Socket) => {
    untaken.add(socket)
    socket.once('close', forget)
  })

  function look (): void {
    for (const socket of untaken.look()) {
      app.log.info({ ip: socket.remoteAddress, bytes: socket.writableLength }, 'a client does not take its answers: cut off')
      socket.destroy()
    }
  }

  let timer: NodeJS.Timeout
  app.addHook('onReady', async () => { timer = setInterval(look, Math.min(1000, writeTimeoutMs / 4)).unref() })
  app.addHook('onClose', async () => { clearInterval(timer) })
}, { name: 'halo:slow-readers', dependencies: ['halo:config'] })
