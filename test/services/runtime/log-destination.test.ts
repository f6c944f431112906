import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'

// Reads a pipe page by page, with pauses: a longer write would be cut where a page ends.
const slowReader = `
  const { readSync, writeSync } = require('node:fs')
  const bytes = Buffer.alloc(4096)
  const pause = new Int32Array(new SharedArrayBuffer(4))
  Atomics.wait(pause, 0, 0, 500)
  for (let length; (length = readSync(0, bytes)) > 0;) {
    writeSync(1, bytes, 0, length)
    Atomics.wait(pause, 0, 0, 0.3)
  }`

t.test('lines of two processes that share a full pipe stay whole', async t => {
  const writer = join(import.meta.dirname, '..', '..', 'helpers', 'log-writer.ts')
  const child = spawn('sh', [
    '-c',
    '("$1" "$2" & "$1" "$2" & wait) | "$1" -e "$3"',
    'sh',
    process.execPath,
    writer,
    slowReader
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.on('data', data => {
    output += String(data)
  })
  await once(child, 'close')
  const lines = output.trimEnd().split('\n')
  const broken = lines.filter(line => {
    try {
      return (JSON.parse(line) as { msg: string }).msg !== 'request'
    } catch {
      return true
    }
  })
  t.strictSame(broken.slice(0, 3), [])
  t.equal(lines.length, 6000)
})
