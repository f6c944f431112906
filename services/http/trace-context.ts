/** Ids of a trace, in the names that log collectors expect (OpenTelemetry, trace context in non-OTLP log formats). */
export interface TraceIds {
  trace_id: string
  span_id: string
}

/** version-traceid-parentid-flags; ids of zeros are not valid (W3C Trace Context, §3.2). */
const pattern = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-|$)/

/** Returns the ids of a `traceparent` header, for log lines; undefined for none or an invalid one. */
export function traceIdsOf (traceparent: string | string[] | undefined): TraceIds | undefined {
  if (typeof traceparent !== 'string') return undefined
  const match = pattern.exec(traceparent)
  return match ? { trace_id: match[1]!, span_id: match[2]! } : undefined
}
