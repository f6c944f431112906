import type { Socket } from 'node:net'
import fp from 'fastify-plugin'
import { createStalledClients } from '../services/traffic/stalled-clients.ts'

/**
 * Closes connections of clients that do not read their responses: those that have not received, within
 * SERVER_WRITE_TIMEOUT, what had been written to them. The idle timeout of the sockets does not find them, because
 * one byte now and then resets it. A timer checks all connections, so that a response costs nothing.
 */
export default fp(async function slowReaders (app) {
  const { writeTimeoutMs } = app.config.server
  const clients = createStalledClients<Socket>({ timeoutMs: writeTimeoutMs })

  function forget (this: Socket): void {
    clients.delete(this)
  }

  app.server.on('connection', (socket: Socket) => {
    clients.add(socket)
    socket.once('close', forget)
  })

  function closeStalled (): void {
    for (const socket of clients.find()) {
      app.log.info(
        { ip: socket.remoteAddress, bytes: socket.writableLength },
        'connection closed: the client does not read its responses'
      )
      socket.destroy()
    }
  }

  let timer: NodeJS.Timeout
  app.addHook('onReady', async () => {
    timer = setInterval(closeStalled, Math.min(1000, writeTimeoutMs / 4)).unref()
  })
  app.addHook('onClose', async () => {
    clearInterval(timer)
  })
}, { name: 'halo:slow-readers', dependencies: ['halo:config'] })
