/** An event of a stream of Server-Sent Events. */
export interface ServerEvent {
  type: string
  data: string
}

export interface EventParser {
  /** Takes the next characters, and calls back for each event that is complete. */
  push (text: string): void
  /** The id of the last event, for Last-Event-ID. */
  readonly lastEventId: string
  /** Milliseconds that the service asks clients to wait before they reconnect. */
  readonly retryMs: number | undefined
}

/** Longest line in characters: a stream without line ends is not kept in memory. */
const maxLine = 1_000_000

/**
 * Parses Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html). An event that is cut off
 * by the end of a stream is never reported.
 */
export function createEventParser (onEvent: (event: ServerEvent) => void, lastEventId = ''): EventParser {
  let rest = ''
  let type = ''
  let data: string[] = []
  let id = lastEventId
  let retryMs: number | undefined
  let isFirst = true

  function takeLine (line: string): void {
    if (line === '') {
      lastEventId = id
      if (data.length > 0) onEvent({ type: type || 'message', data: data.join('\n') })
      type = ''
      data = []
      return
    }
    const [, field, value = ''] = /^([^:]*):? ?(.*)$/s.exec(line)!
    if (field === 'event') type = value
    else if (field === 'data') data.push(value)
    else if (field === 'id' && !value.includes('\0')) id = value
    else if (field === 'retry' && /^\d+$/.test(value)) retryMs = Number(value)
  }

  return {
    push (text) {
      if (isFirst && text !== '') {
        isFirst = false
        if (text.startsWith('\ufeff')) text = text.slice(1)
      }
      rest += text
      // A carriage return at the end may be the first half of a line end.
      for (let match; (match = /\r\n|\n|\r(?!$)/.exec(rest));) {
        takeLine(rest.slice(0, match.index))
        rest = rest.slice(match.index + match[0].length)
      }
      if (rest.length > maxLine) throw new Error('the event stream has a line without an end')
    },
    get lastEventId () {
      return lastEventId
    },
    get retryMs () {
      return retryMs
    }
  }
}
