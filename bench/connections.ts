import { readFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { familyOf, median, residentBytes } from './measure.ts'
import { run } from './measure-scenario.ts'
import type { Generator } from './generator.ts'
import type { Summary } from './latency.ts'
import { scenarios, type Fixtures } from './scenarios.ts'
import type { Server, World } from './world.ts'

/** What a service does with many connections at once. */
export interface ConnectionsResult {
  idle: number
  /** Resident bytes of the service for each connection that does nothing. */
  bytesEach: number
  /** Of the requests that 250 others had under way meanwhile. */
  latency: Summary
  /** Connections that were closed although nobody had asked for it. */
  lost: number
}

/** Files that this process may have open: the hard limit, which Node takes for its soft one. */
export const maxOpenFiles = (): number =>
  Number(/^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))![1])

/** Connections that this process has opened so: the port of one that was closed is not free for a minute. */
let bound = 0

/**
 * Opens connections that stay, from several loopback addresses because each has no more than some 28,000 ports.
 *
 * @param network third number of the first of these addresses
 */
export async function openIdle (
  server: Server,
  count: number,
  network = 1
): Promise<{ sockets: Socket[], lost: () => number }> {
  const sockets: Socket[] = []
  let lost = 0
  let opened = 0
  // A hundred at a time: a server has a queue for those that it has not met yet.
  for (let start = 0; start < count; start += 100) {
    await Promise.all(
      Array.from({ length: Math.min(100, count - start) }, () =>
        new Promise<void>((resolve, reject) => {
          const socket = createConnection({
            host: server.host,
            port: server.port,
            localAddress: `127.0.${network + Math.floor(bound++ / 20_000)}.1`
          })
          let isOpen = false
          socket.on('connect', () => {
            // Each has asked once: it is a client and not only a socket.
            socket.write('GET /livez HTTP/1.1\r\nhost: bench\r\n\r\n')
          })
          socket.on('data', () => {
            if (isOpen) return
            isOpen = true
            opened++
            resolve()
          })
          socket.on('error', error => {
            if (!isOpen) reject(error)
          })
          socket.on('close', () => {
            if (isOpen) lost++
            else reject(new Error(`connection ${opened + 1} was closed before it was answered`))
          })
          sockets.push(socket)
        }))
    )
  }
  return { sockets, lost: () => lost }
}

/** Traffic over 250 connections while many others are open and do nothing. */
export async function measureConnections (
  world: World,
  generator: Generator,
  fixtures: Fixtures,
  wanted: number
): Promise<ConnectionsResult> {
  const idle = Math.min(wanted, maxOpenFiles() - 1000)
  const service = await world.startService({ RATE_LIMIT_RPS: '100000', RATE_LIMIT_BURST: '200000' })
  try {
    await sleep(500)
    const before = bytesOf(service)
    const { sockets, lost } = await openIdle(service, idle)
    await sleep(500)
    const bytesEach = (bytesOf(service) - before) / idle
    const kinds = scenarios.find(({ name }) => name === 'mix')!.kinds(fixtures)
    // As many under way as there are connections for it: a rate that the service can carry keeps them from being a
    // queue.
    const { sample } = await run(generator, service, 'traffic beside idle connections', {
      kinds,
      connections: 250,
      addresses: 250,
      seconds: 3
    })
    const { result } = await run(generator, service, 'traffic beside idle connections', {
      kinds,
      connections: 250,
      addresses: 250,
      seconds: 5,
      rate: Math.floor(sample.rate / 2)
    })
    const lostThen = lost()
    for (const socket of sockets) socket.destroy()
    return { idle, bytesEach, latency: result.latency, lost: lostThen }
  } finally {
    await service.stop()
  }
}

const bytesOf = (server: Server): number => server.pids.reduce((sum, pid) => sum + residentBytes(pid), 0)

/** Milliseconds after which a process has noticed that nobody asks it. */
const untilIdleMs = 40_000

/** Resident memory of the service when nobody asks it, in bytes: of one process, and of each one beside it. */
export async function measureIdleMemory (world: World): Promise<{ one: number, further: number }> {
  const one = await world.startService()
  await sleep(untilIdleMs)
  const alone = bytesOf(one)
  await one.stop()
  const two = await world.startService({ WEB_CONCURRENCY: '2' })
  await sleep(untilIdleMs)
  const each = familyOf(two.pids[0]!).map(residentBytes)
  await two.stop()
  return { one: alone, further: median(each.slice(1)) }
}

/** So many requests of the mix over so many connections at once. */
export async function measureAmount (
  service: Server,
  generator: Generator,
  fixtures: Fixtures,
  amount: number,
  connections: number
) {
  const kinds = scenarios.find(({ name }) => name === 'mix')!.kinds(fixtures)
  const { result, sample } = await run(generator, service, `${amount} requests`, {
    kinds,
    connections,
    addresses: 1000,
    seconds: 120,
    amount
  })
  return {
    amount,
    connections,
    answered: result.answered,
    seconds: result.seconds,
    cpuMicros: sample.cpuMicros,
    latency: result.latency
  }
}

/** Listeners to the stream of one video, whose counters change all the time. */
export async function measureStreams (world: World, fixtures: Fixtures, wanted: number) {
  const listeners = Math.min(wanted, maxOpenFiles() - 1000)
  const service = await world.startService({
    RATE_LIMIT_RPS: '100000',
    RATE_LIMIT_BURST: '200000',
    // All of them come from one address.
    STREAMS_PER_ADDRESS: '100000'
  })
  try {
    const before = bytesOf(service)
    const video = fixtures.videos[0]!
    let events = 0
    const sockets: Socket[] = []
    for (let start = 0; start < listeners; start += 100) {
      await Promise.all(
        Array.from({ length: Math.min(100, listeners - start) }, () =>
          new Promise<void>((resolve, reject) => {
            const socket = createConnection({ host: service.host, port: service.port })
            socket.on('error', reject)
            socket.on('connect', () => {
              socket.write(`GET /api/v1/videos/${video}/engagement/stream HTTP/1.1\r\nhost: bench\r\n\r\n`)
            })
            socket.on('data', bytes => {
              resolve()
              if (bytes.includes('event: counters')) events++
              else if (bytes.includes('HTTP/1.1 4')) reject(new Error(`a stream was refused: ${bytes.toString('latin1')}`))
            })
            sockets.push(socket)
          }))
      )
    }
    const bytesEach = (bytesOf(service) - before) / listeners
    events = 0
    const [bearer] = fixtures.bearers(1)
    const seconds = 5
    for (let n = 0; n < seconds * 2; n++) {
      await fetch(`http://${service.host}:${service.port}/api/v1/videos/${video}/engagement/comments`, {
        method: 'POST',
        headers: { authorization: bearer! }
      })
      await sleep(500)
    }
    const received = events
    for (const socket of sockets) socket.destroy()
    return { listeners, bytesEach, eventsPerListenerAndSecond: received / listeners / seconds }
  } finally {
    await service.stop()
  }
}
