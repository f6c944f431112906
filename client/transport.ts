import { sleep } from './environment.ts'
import { HaloError } from './errors.ts'

export type Fetch = typeof globalThis.fetch

export interface TransportOptions {
  /** Address of the service, such as `https://api.halo.example`. */
  baseUrl: string
  fetch?: Fetch
  /** Milliseconds that one attempt may take (10,000). */
  timeoutMs?: number
  /** Milliseconds for which a call is repeated while the service cannot answer (20,000). */
  retryForMs?: number
}

export type Query = Record<string, string | number | boolean | readonly number[] | undefined>

export interface Call {
  method?: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Path below /api/v1. */
  path: string
  query?: Query
  body?: unknown
  headers?: Record<string, string | undefined>
  token?: string
  signal?: AbortSignal
  /** Whether the request outlives the page. */
  keepalive?: boolean
  /** Whether a second request does no more than the first; GET and DELETE never do. */
  isRepeatable?: boolean
  retryForMs?: number
}

export interface Answer<T> {
  data: T
  headers: { get (name: string): string | null }
}

export type Transport = ReturnType<typeof createTransport>

/** Milliseconds of the longest random wait before an attempt. */
const maxBackoffMs = 5000

/** Statuses of a service, or of a proxy before it, that cannot answer at the moment. */
const temporary = new Set([0, 408, 429, 502, 503, 504])

/** Calls the service by `fetch`. A call that is safe to repeat is repeated, with jitter and Retry-After. */
export function createTransport (options: TransportOptions) {
  const { timeoutMs = 10_000, retryForMs = 20_000 } = options
  const base = `${options.baseUrl.replace(/\/+$/, '')}/api/v1`
  // Looked up for each call: a page may replace it after the client was made.
  const fetch: Fetch = (...args) => (options.fetch ?? globalThis.fetch)(...args)

  function request ({ method = 'GET', path, query, body, headers, token, keepalive }: Call, signal: AbortSignal) {
    const sent: Record<string, string> = { accept: 'application/json' }
    for (const [name, value] of Object.entries(headers ?? {})) if (value !== undefined) sent[name] = value
    if (token !== undefined) sent['authorization'] = `Bearer ${token}`
    if (body !== undefined) sent['content-type'] = 'application/json'
    return fetch(base + path + toQuery(query), {
      method,
      headers: sent,
      signal,
      ...body === undefined ? {} : { body: JSON.stringify(body) },
      ...keepalive ? { keepalive } : {}
    })
  }

  async function attempt<T> (call: Call): Promise<Answer<T>> {
    if (call.signal?.aborted) throw call.signal.reason
    const controller = new AbortController()
    const timer = setTimeout(() => { controller.abort() }, timeoutMs)
    const onAbort = (): void => { controller.abort() }
    call.signal?.addEventListener('abort', onAbort)
    try {
      const response = await request(call, controller.signal)
      const text = await response.text()
      if (!response.ok) throw toError(response, text)
      return { data: (response.status === 204 ? undefined : parse(response, text)) as T, headers: response.headers }
    } catch (cause) {
      if (cause instanceof HaloError) throw cause
      call.signal?.throwIfAborted?.()
      throw controller.signal.aborted
        ? new HaloError({ code: 'timeout', message: 'The service did not answer in time', cause })
        : new HaloError({ code: 'network_error', message: 'The service cannot be reached', cause })
    } finally {
      clearTimeout(timer)
      call.signal?.removeEventListener('abort', onAbort)
    }
  }

  return {
    base,
    request,

    /** Sends a call. @throws HaloError; the reason of `signal` when it was aborted */
    async send<T> (call: Call): Promise<Answer<T>> {
      // The clock of the device may be changed meanwhile.
      const deadline = performance.now() + (call.retryForMs ?? retryForMs)
      for (let tries = 0; ; tries++) {
        try {
          return await attempt<T>(call)
        } catch (error) {
          if (!(error instanceof HaloError) || !mayRepeat(call, error)) throw error
          const waitMs = (error.retryAfter ?? 0) * 1000 + Math.random() * Math.min(250 * 2 ** tries, maxBackoffMs)
          if (performance.now() + waitMs > deadline) throw error
          await sleep(waitMs, call.signal)
        }
      }
    }
  }
}

function mayRepeat ({ method = 'GET', isRepeatable }: Call, { status, code }: HaloError): boolean {
  // Refused before any work was done for it.
  if (status === 429 || code === 'server_busy') return true
  if (method !== 'GET' && method !== 'DELETE' && !isRepeatable) return false
  return temporary.has(status) || code === 'idempotency_in_flight'
}

/** Returns a query string. URLSearchParams is incomplete in React Native. */
export function toQuery (query: Query = {}): string {
  const members = Object.entries(query).filter(([, value]) => value !== undefined)
  return members.length === 0
    ? ''
    : `?${members.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join('&')}`
}

interface Response {
  status: number
  headers: { get (name: string): string | null }
}

function parse (response: Response, text: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw unexpected(response, cause)
  }
  if (typeof value !== 'object' || value === null) throw unexpected(response)
  return value
}

/** Returns the error of a response that is not 2xx. */
export function toError (response: Response, text: string): HaloError {
  let problem
  try {
    problem = JSON.parse(text)
  } catch {}
  if (typeof problem?.error !== 'string') return unexpected(response)
  return new HaloError({
    code: problem.error,
    message: problem.message,
    status: response.status,
    retryAfter: retryAfterOf(response),
    requestId: problem.request_id,
    violations: problem.violations
  })
}

/** Returns the error of an answer that is not one of the service. */
export const unexpected = (response: Response, cause?: unknown): HaloError =>
  new HaloError({
    code: 'unexpected_response',
    message: `The answer (${response.status}) is not one of the service`,
    status: response.status,
    retryAfter: retryAfterOf(response),
    cause
  })

/** Seconds of Retry-After; a proxy may send a date instead, which is ignored. */
function retryAfterOf ({ headers }: Response): number | undefined {
  const value = Number(headers.get('retry-after') ?? NaN)
  return value >= 0 ? value : undefined
}
