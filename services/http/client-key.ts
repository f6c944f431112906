/**
 * Returns the key under which a client address is limited: an IPv4 address as it is, an IPv6 address as its /64,
 * because one subscriber has a whole /64 (RFC 6177) and could use a new address for every request.
 *
 * Hand-written because every request needs it; a test compares it with `normalizeIP` of @fastify/rate-limit, which
 * takes ten times as long.
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
