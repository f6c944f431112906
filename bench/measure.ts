import { readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'

/** A process and those that it has begun, as they are now. */
export function familyOf (pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`)
    .flatMap(task => readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number))
  return [pid, ...children.flatMap(familyOf)]
}

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

/** A process under load, looked at again and again. */
export interface Usage {
  /** Seconds since the beginning, share of one CPU, resident bytes. */
  samples: { at: number, cpu: number, bytes: number }[]
  /** CPU time of all the processes since the beginning, in microseconds. */
  micros: number
}

/** Share of the time of all CPUs of this machine that something ran, since the last call of what is returned. */
export function watchMachine (): () => number {
  const ticks = (): { all: number, idle: number } => {
    const fields = /^cpu +(.*)$/m.exec(readFileSync('/proc/stat', 'utf8'))![1]!.split(' ').map(Number)
    return { all: fields.reduce((sum, value) => sum + value, 0), idle: fields[3]! + fields[4]! }
  }
  let last = ticks()
  return () => {
    const now = ticks()
    const share = 1 - (now.idle - last.idle) / (now.all - last.all)
    last = now
    return share
  }
}

/** Watches processes until it is asked what they used. */
export function watch (pids: number[], periodMs = 250): () => Usage {
  const cpu = (): number => pids.reduce((sum, pid) => sum + cpuMicros(pid), 0)
  const startedAt = performance.now()
  const first = cpu()
  const samples: Usage['samples'] = []
  let last = { at: startedAt, micros: first }
  const timer = setInterval(() => {
    const now = { at: performance.now(), micros: cpu() }
    samples.push({
      at: (now.at - startedAt) / 1000,
      cpu: (now.micros - last.micros) / 1000 / (now.at - last.at),
      bytes: pids.reduce((sum, pid) => sum + residentBytes(pid), 0)
    })
    last = now
  }, periodMs)
  return () => {
    clearInterval(timer)
    return { samples, micros: cpu() - first }
  }
}
