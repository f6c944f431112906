import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { compile } from '@fastify/proxy-addr'

/**
 * The key under which a client address is limited: an IPv4 address as it is, an IPv6 address as its /64,
 * since one subscriber has a whole /64 (RFC 6177) and could use a new address for every request.
 *
 * Hand-written for the hot path; the tests hold it to `normalizeIP` of @fastify/rate-limit, which takes some
 * ten times as long.
 */
export function clientKey (address: string): string {
  if (address.indexOf(':') === -1) return address.length > 64 ? address.slice(0, 64) : address
  const bare = address.split('%', 1)[0]!.toLowerCase()
  const mapped = /^(?:0{0,4}:){2,5}ffff:(\d{1,3}(?:\.\d{1,3}){3})$/.exec(bare)
  if (mapped) return mapped[1]!

  const gap = bare.indexOf('::')
  const head = gap === -1 ? bare.split(':') : bare.slice(0, gap).split(':').filter(Boolean)
  const tail = gap === -1 ? [] : bare.slice(gap + 2).split(':').filter(Boolean)
  // A dotted end (64:ff9b::192.0.2.1) stands for two groups.
  const tailLength = tail.length + (tail.at(-1)?.includes('.') ? 1 : 0)
  const groups = [...head, ...Array<string>(Math.max(0, 8 - head.length - tailLength)).fill('0'), ...tail]
  return groups.slice(0, 4).map(group => group.replace(/^0+(?=.)/, '')).join(':')
}

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
 * Reads the address of a request's client: the peer's, or what the proxies that are trusted say of it. Where one of them
 * says something that is no address, the last address that is known counts.
 *
 * @param trusted CIDRs of the proxies
 */
export function createAddresses (trusted: string[]): (request: IncomingMessage) => string {
  const peer = (request: IncomingMessage): string => request.socket.remoteAddress ?? ''
  if (trusted.length === 0) return peer
  const compiled = compile(trusted)
  // There are few proxies, and reading an address takes longer than the rest of this.
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
    // From the right: the last proxy has written the last item.
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
