import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A `.cpuprofile`, as V8 writes it. */
interface CpuProfile {
  nodes: { id: number, callFrame: { functionName: string, url: string, lineNumber: number } }[]
  samples: number[]
  timeDeltas: number[]
}

/** Where the CPU time of the profiles in a folder went, by whose code it is and by function, as lines of text. */
export function summarizeProfiles (folder: string, root: string): string {
  const byOwner = new Map<string, number>()
  const byFunction = new Map<string, number>()
  let total = 0
  for (const file of readdirSync(folder).filter(name => name.endsWith('.cpuprofile'))) {
    const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile
    const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
    samples.forEach((id, index) => {
      const { functionName, url, lineNumber } = frames.get(id)!
      if (functionName === '(idle)' || functionName === '(root)') return
      const micros = timeDeltas[index]!
      const place = placeOf(url, root)
      const name = `${functionName || '(anonymous)'} ${place.path === '' ? '' : `${place.path}:${lineNumber + 1}`}`
        .trimEnd()
      total += micros
      byOwner.set(place.owner, (byOwner.get(place.owner) ?? 0) + micros)
      byFunction.set(name, (byFunction.get(name) ?? 0) + micros)
    })
  }
  const table = (of: Map<string, number>, count: number): string[] =>
    [...of].sort(([, a], [, b]) => b - a).slice(0, count)
      .map(([name, micros]) => `${(micros / total * 100).toFixed(1).padStart(6)} %  ${name}`)
  return [`where ${(total / 1e6).toFixed(1)} s of CPU went`, ...table(byOwner, 12), '', ...table(byFunction, 25)].join(
    '\n'
  )
}

function placeOf (url: string, root: string): { owner: string, path: string } {
  if (url.startsWith('node:')) return { owner: 'Node', path: url }
  if (url === '') return { owner: 'V8 and system calls', path: '' }
  const path = url.replace(`file://${root}`, '').replace(/^\//, '')
  const [, name] = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path) ?? []
  return name === undefined ? { owner: 'the service', path } : { owner: name, path: path.slice(path.indexOf(name)) }
}
