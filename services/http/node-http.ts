/**
 * `node:http`, taken without `import`: an ES module that imports it evaluates all of its exports, WebSocket's among
 * them, and with it Node loads undici, which the service does not use.
 */
const http = process.getBuiltinModule('node:http')

export const { STATUS_CODES, ServerResponse, createServer, validateHeaderName, validateHeaderValue } = http
