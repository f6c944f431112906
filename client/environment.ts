/** The parts of a browser that Node or React Native may lack. Each is used only where it exists. */
interface Environment {
  document?: EventSource & { visibilityState: string }
  navigator?: {
    locks?: {
      request<T> (name: string, options: { signal?: AbortSignal }, work: () => Promise<T>): Promise<T>
    }
  }
  crypto?: { getRandomValues (bytes: Uint8Array): Uint8Array }
  BroadcastChannel?: new (name: string) => Channel
  addEventListener?: EventSource['addEventListener']
  removeEventListener?: EventSource['removeEventListener']
}

interface EventSource {
  addEventListener (type: string, listener: (event: never) => void): void
  removeEventListener (type: string, listener: (event: never) => void): void
}

export interface Channel {
  onmessage: ((event: { data: unknown }) => void) | null
  postMessage (message: unknown): void
  close (): void
}

export const environment = globalThis as unknown as Environment

/** Runs work that at most one tab of this origin does at a time, where the browser has Web Locks. */
export function exclusively<T> (name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  const { locks } = environment.navigator ?? {}
  if (!locks) return work()
  let hasBegun = false
  return locks.request(name, signal ? { signal } : {}, () => {
    hasBegun = true
    return work()
  }).catch((error: unknown) => {
    // A browser that denies storage denies locks as well.
    if (hasBegun || signal?.aborted) throw error
    return work()
  })
}

/** Returns 25 random letters and digits, for keys and names that no other client chooses. */
export function randomId (): string {
  const bytes = new Uint8Array(25)
  if (environment.crypto) environment.crypto.getRandomValues(bytes)
  else bytes.forEach((_, index) => { bytes[index] = Math.random() * 256 })
  return Array.from(bytes, byte => (byte % 36).toString(36)).join('')
}

/** Calls a function of the app. An error that it throws is reported as uncaught, and does not reach the caller. */
export function callback<T extends unknown[]> (listener: ((...values: T) => void) | undefined, ...values: T): void {
  try {
    listener?.(...values)
  } catch (error) {
    setTimeout(() => { throw error })
  }
}

/** Waits, or rejects with the reason of the signal. @param ms milliseconds */
export function sleep (ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort)
  })
}
