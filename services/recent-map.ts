export interface RecentMapOptions {
  /** Milliseconds for which an entry is kept at least, unless there are too many; it is gone after twice as long. */
  maxAgeMs: number
  /** Entries in each of the two maps. */
  maxSize?: number
  now?: () => number
}

/**
 * What was set in the last moments, by key: two maps that take turns, the older of which is dropped whole, so that
 * nothing has to be swept and memory is bounded.
 */
export class RecentMap<Key, Value> {
  #young = new Map<Key, Value>()
  #old = new Map<Key, Value>()
  #turnedAt: number
  readonly #maxAgeMs: number
  readonly #maxSize: number
  readonly #now: () => number

  constructor ({ maxAgeMs, maxSize = Infinity, now = performance.now.bind(performance) }: RecentMapOptions) {
    this.#maxAgeMs = maxAgeMs
    this.#maxSize = maxSize
    this.#now = now
    this.#turnedAt = now()
  }

  get (key: Key): Value | undefined {
    this.#turn()
    return this.#young.get(key) ?? this.#old.get(key)
  }

  set (key: Key, value: Value): void {
    this.#turn()
    if (this.#young.size >= this.#maxSize) this.#begin(this.#young, this.#now())
    this.#young.set(key, value)
  }

  delete (key: Key): void {
    this.#young.delete(key)
    this.#old.delete(key)
  }

  get size (): number { return this.#young.size + this.#old.size }

  #turn (): void {
    const now = this.#now()
    const age = now - this.#turnedAt
    if (age < this.#maxAgeMs) return
    const isNext = age < 2 * this.#maxAgeMs
    this.#begin(isNext ? this.#young : new Map(), isNext ? this.#turnedAt + this.#maxAgeMs : now)
  }

  #begin (old: Map<Key, Value>, turnedAt: number): void {
    this.#old = old
    this.#young = new Map()
    this.#turnedAt = turnedAt
  }
}
