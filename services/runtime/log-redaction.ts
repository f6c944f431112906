/** Characters of a URL or a header that are logged, at the most. */
const maxLength = 2048

/** Names of query members that hold secrets. Clients send them although the service reads none from a query. */
const secretName = /token|pass|pwd|secret|auth|jwt|key|session|credential|(?:^|[^a-z])(?:code|otp|pin|sid)(?:$|[^a-z])/i

/** Beginnings of tokens and hashes. Each piece of a text is matched once, so that no text makes this slow. */
const secretStart = /eyJ|halo_refresh_|halo1\$|\$2[aby]\$/

const hidden = '[redacted]'

/**
 * Control characters that JSON does not escape and a terminal interprets: DEL and C1 (CSI begins an escape sequence).
 */
const controls = /[\u007f-\u009f]/g

const withoutControls = (text: string): string =>
  text.replace(controls, character => `\\u00${character.charCodeAt(0).toString(16)}`)

/** Returns a URL for the log, without the secrets that a client has put into it. */
export function loggableUrl (url: string): string {
  const start = url.indexOf('?')
  if (start === -1 && !url.includes('%')) return loggableText(url)
  const path = start === -1 ? url : url.slice(0, start)
  const query = start === -1
    ? ''
    : url.slice(start, maxLength).replace(/[^?&;#]+/g, member => {
      const end = member.indexOf('=')
      return end !== -1 && secretName.test(decoded(member.slice(0, end)))
        ? `${member.slice(0, end)}=${hidden}`
        : withoutSecrets(member)
    })
  return withoutControls(path.slice(0, maxLength).replace(/[^/]+/g, withoutSecrets) + query)
}

/** Returns a client's text for the log. */
export function loggableText (text: string): string {
  const short = text.length > maxLength ? text.slice(0, maxLength) : text
  return withoutControls(secretStart.test(short) ? short.replace(/[\w.$-]+/g, withoutSecrets) : short)
}

const withoutSecrets = (piece: string): string => secretStart.test(decoded(piece)) ? hidden : piece

function decoded (text: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    // Not decodable as a whole: decode its ASCII characters one by one.
    return text.replace(/%([2-7][0-9a-f])/gi, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)))
  }
}
