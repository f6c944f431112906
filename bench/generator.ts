import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import autocannon from 'autocannon'
import { summarize, type Summary } from './latency.ts'
import { createRequests, textOf, type Load } from './load.ts'

export interface LoadResult {
  seconds: number
  /** Answers that were expected. */
  answered: number
  /** Answers that were not, by kind and status; `error` is a connection that broke. */
  unexpected: Record<string, Record<string, number>>
  /** From the moment at which a request was due, of expected answers. */
  latency: Summary
  /** Of those answers that were a 503 or 429, when these were expected. */
  refusals: Summary
  /** Expected answers in each tenth of a second. */
  perTenth: number[]
  /** Share of one CPU that the generator used. */
  generatorCpu: number
}

/** Generates load in a process of its own. */
export function createGenerator () {
  const child: ChildProcess = fork(import.meta.filename, { env: { ...process.env, HALO_GENERATOR: '1' } })
  let settle: ((answer: LoadResult | { error: string }) => void) | undefined
  child.on('message', answer => {
    settle?.(answer as LoadResult)
  })
  child.on('exit', () => {
    settle?.({ error: 'the generator died' })
  })
  return {
    pid: child.pid!,
    async run (load: Load): Promise<LoadResult> {
      if (settle) throw new Error('a generator does one thing at a time')
      const answer = await new Promise<LoadResult | { error: string }>(resolve => {
        settle = resolve
        child.send(load)
      })
      settle = undefined
      if ('error' in answer) throw new Error(answer.error)
      return answer
    },
    stop (): void {
      child.kill()
    }
  }
}

export type Generator = ReturnType<typeof createGenerator>

/** Counts answers as they come. */
function createTally ({ kinds }: Load) {
  const latencies: number[] = []
  const refusals: number[] = []
  const perTenth: number[] = []
  const unexpected: LoadResult['unexpected'] = {}
  let startedAt = performance.now()
  let cpu = process.cpuUsage()

  function fail (kind: string, status: string): void {
    const ofKind = (unexpected[kind] ??= {})
    ofKind[status] = (ofKind[status] ?? 0) + 1
  }

  return {
    get startedAt () {
      return startedAt
    },
    /** The load begins now. */
    begin (): void {
      startedAt = performance.now()
      cpu = process.cpuUsage()
    },
    fail,
    answer (index: number, status: number, ms: number): void {
      const { name, expect } = kinds[index]!
      if (!expect.includes(status)) return fail(name, String(status))
      if ((status === 503 || status === 429) && expect.length > 1) {
        refusals.push(ms)
        return
      }
      latencies.push(ms)
      const tenth = Math.floor((performance.now() - startedAt) / 100)
      perTenth[tenth] = (perTenth[tenth] ?? 0) + 1
    },
    result (): LoadResult {
      const seconds = (performance.now() - startedAt) / 1000
      const { user, system } = process.cpuUsage(cpu)
      return {
        seconds,
        answered: latencies.length,
        unexpected,
        latency: summarize(latencies),
        refusals: summarize(refusals),
        perTenth: Array.from(perTenth, count => count ?? 0),
        generatorCpu: (user + system) / 1e6 / seconds
      }
    }
  }
}

/** As many requests as are answered: autocannon. */
async function runClosed (load: Load): Promise<LoadResult> {
  const next = createRequests(load)
  // Each connection takes the requests that are its turn: enough of them for the time, then the same again.
  const length = Math.max(1, Math.ceil(30_000 / load.connections))
  const turns = Array.from({ length: load.connections }, (): ReturnType<typeof next>[] => [])
  for (let n = 0; n < length; n++) for (const turn of turns) turn.push(next())
  const tally = createTally(load)
  const result = await cannon({
    url: `http://${load.host}:${load.port}`,
    connections: load.connections,
    ...load.amount === undefined ? { duration: load.seconds } : { amount: load.amount },
    timeout: Math.ceil((load.timeoutMs ?? 10_000) / 1000),
    setupClient (client) {
      let ms = 0
      client.on('response', (status, bytes, responseTime) => {
        ms = responseTime
      })
      client.setRequests(turns.pop()!.map(({ index, method, path, headers, body }) => {
        // autocannon calls back before it emits the event: the time of an answer is known a moment later.
        return {
          method,
          path,
          headers,
          ...body === undefined ? {} : { body },
          onResponse: (status: number) => {
            queueMicrotask(() => {
              tally.answer(index, status, ms)
            })
          }
        }
      }))
    }
  }, tally.begin)
  if (result.errors > 0) { for (let n = 0; n < result.errors; n++) tally.fail('any', 'error') }
  return tally.result()
}

/** autocannon, which says when it begins only in its other form. */
function cannon (options: autocannon.Options, onStart: () => void): Promise<autocannon.Result> {
  return new Promise((resolve, reject) => {
    const instance = autocannon(options, (error: unknown, result) => {
      if (error) reject(error instanceof Error ? error : new Error('autocannon failed', { cause: error }))
      else resolve(result)
    })
    instance.on('start', onStart)
  })
}

interface Pending {
  index: number
  dueAt: number
  text: string
}

/**
 * Requests at a fixed rate, each from its moment on: one that finds every connection busy waits, and its wait counts.
 * (`overallRate` of autocannon sends the requests of each second at its beginning.)
 */
async function runOpen (load: Load & { rate: number }): Promise<LoadResult> {
  const { rate, seconds, connections, timeoutMs = 10_000 } = load
  const next = createRequests(load)
  const waiting: Pending[] = []
  let first = 0
  const total = Math.floor(rate * seconds)
  let issued = 0
  const idle: Connection[] = []
  const all: Connection[] = []
  // A hundred at a time: a server has a queue for those that it has not met yet.
  while (all.length < connections) {
    all.push(
      ...await Promise.all(
        Array.from({ length: Math.min(100, connections - all.length) }, () => openConnection(load, onIdle))
      )
    )
  }
  idle.push(...all)
  const tally = createTally(load)

  function onIdle (connection: Connection): void {
    issue()
    const pending = waiting[first]
    if (!pending) {
      idle.push(connection)
      return
    }
    first++
    if (first > 10_000) {
      waiting.splice(0, first)
      first = 0
    }
    ask(connection, pending)
  }

  const open = new Set<Pending>()
  function ask (connection: Connection, pending: Pending): void {
    const { index, dueAt, text } = pending
    open.add(pending)
    connection.ask(text, status => {
      open.delete(pending)
      if (status === 'error') tally.fail(load.kinds[index]!.name, 'error')
      else tally.answer(index, status, performance.now() - dueAt)
    })
  }

  /** Sends what is due: at each tick of the timer, and whenever an answer comes, which is more often. */
  function issue (): void {
    // The first one is due at the beginning.
    const due = Math.min(total, Math.floor((performance.now() - tally.startedAt) / 1000 * rate) + 1)
    for (; issued < due; issued++) {
      const request = next()
      const pending = {
        index: request.index,
        dueAt: tally.startedAt + issued * 1000 / rate,
        text: textOf(request, load.host)
      }
      const connection = idle.pop()
      if (connection) ask(connection, pending)
      else waiting.push(pending)
    }
  }
  await new Promise<void>(resolve => {
    const timer = setInterval(() => {
      issue()
      const isOver = performance.now() - tally.startedAt > seconds * 1000 + timeoutMs
      if ((issued >= total && open.size === 0 && first >= waiting.length) || isOver) {
        clearInterval(timer)
        resolve()
      }
    }, 1)
  })
  for (const { index } of open) tally.fail(load.kinds[index]!.name, 'no answer')
  for (const { index } of waiting.slice(first)) {
    tally.fail(load.kinds[index]!.name, 'not sent, every connection was busy')
  }
  for (const connection of all) connection.close()
  return tally.result()
}

interface Connection {
  ask: (text: string, done: (status: number | 'error') => void) => void
  close: () => void
}

/**
 * One connection, opened again when it breaks or is closed; it reads the little of HTTP that the service's answers
 * need.
 */
async function openConnection ({ host, port }: Load, onIdle: (connection: Connection) => void): Promise<Connection> {
  let socket: Socket
  let done: ((status: number | 'error') => void) | undefined
  let isOver = false
  let received: Buffer = Buffer.alloc(0)
  /** Bytes of the answer under way, once its head is there. */
  let wanted = -1
  let status = 0

  async function open (): Promise<void> {
    socket = createConnection({ port, host, noDelay: true })
    socket.on('data', read)
    socket.on('error', () => {})
    socket.on('close', () => {
      if (isOver) return
      settle('error')
      open().catch(() => {})
    })
    await once(socket, 'connect')
  }

  function settle (outcome: number | 'error'): void {
    received = Buffer.alloc(0)
    wanted = -1
    const callback = done
    done = undefined
    callback?.(outcome)
    if (callback && !isOver) onIdle(connection)
  }

  function read (bytes: Buffer): void {
    received = received.length === 0 ? bytes : Buffer.concat([received, bytes])
    if (wanted < 0) {
      const end = received.indexOf('\r\n\r\n')
      if (end < 0) return
      const head = received.toString('latin1', 0, end).toLowerCase()
      status = Number(head.slice(9, 12))
      const at = head.indexOf('\r\ncontent-length: ')
      wanted = end + 4 + (at < 0 ? 0 : parseInt(head.slice(at + 18), 10))
    }
    if (received.length >= wanted) settle(status)
  }

  const connection: Connection = {
    ask (text, callback) {
      done = callback
      socket.write(text, 'latin1')
    },
    close () {
      isOver = true
      socket.destroy()
    }
  }
  await open()
  return connection
}

if (process.env['HALO_GENERATOR'] !== undefined) {
  process.on('message', (load: Load) => {
    const run = load.rate === undefined ? runClosed(load) : runOpen({ ...load, rate: load.rate })
    run.then(result => process.send!(result), (error: unknown) => process.send!({ error: String(error) }))
  })
  process.on('disconnect', () => process.exit())
}
