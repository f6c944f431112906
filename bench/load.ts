/** A kind of request of a load. */
export interface Kind {
  name: string
  /** How many of all requests are of this kind, as a share of the weights of all. */
  weight: number
  method: 'GET' | 'POST' | 'DELETE'
  /** Taken in turn. */
  paths: string[]
  headers?: Record<string, string>
  /** Values of Authorization, taken in turn. */
  bearers?: string[]
  /** Bodies, taken in turn. */
  bodies?: string[]
  /** Statuses that are answers; any other one fails the run. */
  expect: number[]
}

/** What is sent to a server. */
export interface Load {
  host: string
  port: number
  kinds: Kind[]
  connections: number
  seconds: number
  /** Client addresses, told by X-Forwarded-For, over which requests are spread. */
  addresses: number
  /**
   * Requests a second, each at its moment, whatever is answered; without it each connection asks again when it was
   * answered.
   */
  rate?: number
  /** Stops after so many requests, without a rate. */
  amount?: number
  /** Milliseconds after which a request without an answer is a failed one. */
  timeoutMs?: number
}

/** Requests of a load in an order that is spread evenly over its kinds. */
export function createRequests ({ kinds, addresses }: Pick<Load, 'kinds' | 'addresses'>) {
  const total = kinds.reduce((sum, { weight }) => sum + weight, 0)
  const due = kinds.map(() => 0)
  const counts = kinds.map(() => 0)
  let address = 0
  const addressOf = (n: number): string => `10.${n >> 16 & 255}.${n >> 8 & 255}.${n & 255}`

  function nextKind (): number {
    // The one that is furthest behind its share.
    let best = 0
    for (let index = 0; index < kinds.length; index++) {
      due[index]! += kinds[index]!.weight / total
      if (due[index]! > due[best]!) best = index
    }
    due[best]!--
    return best
  }

  return () => {
    const index = nextKind()
    const kind = kinds[index]!
    const count = counts[index]!++
    const turn = <T>(list: T[]): T => list[count % list.length]!
    const headers: Record<string, string> = { ...kind.headers, 'x-forwarded-for': addressOf(1 + address++ % addresses) }
    if (kind.bearers) headers['authorization'] = turn(kind.bearers)
    const body = kind.bodies && turn(kind.bodies)
    if (body !== undefined) headers['content-type'] = 'application/json'
    return { index, kind, method: kind.method, path: turn(kind.paths), headers, body }
  }
}

/** A request as it is sent (RFC 9112). */
export function textOf (
  { method, path, headers, body }: ReturnType<ReturnType<typeof createRequests>>,
  host: string
): string {
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')
  const length = body === undefined
    ? method === 'GET' ? '' : 'content-length: 0\r\n'
    : `content-length: ${Buffer.byteLength(body)}\r\n`
  return `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${fields}${length}\r\n${body ?? ''}`
}
