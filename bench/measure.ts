import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'

/** CPU time of a process so far, in microseconds: user and system, of all its threads. */
export function cpuMicros (pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  // Clock ticks of 10 ms; a run is long enough for them.
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}

/** Resident memory of a process, in bytes. */
export function residentBytes (pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024
}

export function median (values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
}

/** What the numbers were measured on, for the head of a table. */
export function machine (): string {
  return `${cpus().length} × ${cpus()[0]!.model}, Node ${process.versions.node}`
}
