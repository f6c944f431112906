/** Members of a query that say who somebody is, or prove it; clients put them there although nothing here reads them. */
const secretMember = /([?&][^=&]*(?:token|password|secret|authorization|jwt|key)[^=&]*=)[^&#]*/gi

/** Tokens, wherever in an address they stand. */
const anyToken = /eyJ[\w-]{6,}(?:\.[\w-]*){1,2}|halo_refresh_[\w.-]*/g

/** An address as it may stand in the log: without secrets that a client has put into it. */
export function loggableUrl (url: string): string {
  const shown = url.includes('?') ? url.replace(secretMember, '$1[redacted]') : url
  return shown.includes('eyJ') || shown.includes('halo_refresh_') ? shown.replace(anyToken, '[redacted]') : shown
}
