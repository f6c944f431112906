import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { compile } from '@fastify/proxy-addr'

/**
 * Reads one item of X-Forwarded-For as proxies write it: an address, alone or with a port, an IPv6 address in brackets,
 * and any of these in quotes (RFC 7239 §6).
 *
 * @returns the bare address; undefined for a text that is none
 */
export function readForwardedAddress (item: string): string | undefined {
  let text = item.trim()
  if (text.length > 64) return undefined
  if (text.startsWith('"') && text.endsWith('"')) text = text.slice(1, -1)
  const bracketed = /^\[([^\]]+)\](?::\d{1,5})?$/.exec(text)?.[1]
  const withPort = /^(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}$/.exec(text)?.[1]
  const address = bracketed ?? withPort ?? text
  return isIP(address) === 0 ? undefined : address
}

/**
 * Returns a function that reads the client address of a request: the peer's, or the one that trusted proxies report.
 * When a proxy reports something that is no address, the last known address counts.
 *
 * @param trusted CIDRs of the proxies
 */
export function createAddresses (trusted: string[]): (request: IncomingMessage) => string {
  const peer = (request: IncomingMessage): string => request.socket.remoteAddress ?? ''
  if (trusted.length === 0) return peer
  const compiled = compile(trusted)
  // There are few proxies, and parsing an address takes longer than the rest of this function.
  const known = new Map<string, boolean>()
  function isTrusted (address: string): boolean {
    let isProxy = known.get(address)
    if (isProxy === undefined) {
      if (known.size > 1000) known.clear()
      known.set(address, isProxy = isIP(address) !== 0 && compiled(address, 0))
    }
    return isProxy
  }
  return request => {
    let address = peer(request)
    const forwarded = request.headers['x-forwarded-for'] as string | undefined
    if (forwarded === undefined) return address
    // From the right: the last proxy has appended the last item.
    for (let end = forwarded.length; end >= 0 && isTrusted(address);) {
      const start = forwarded.lastIndexOf(',', end - 1)
      const next = readForwardedAddress(forwarded.slice(start + 1, end))
      if (next === undefined) break
      address = next
      if (start === -1) break
      end = start
    }
    return address
  }
}
