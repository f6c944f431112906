export interface ExpiringMapOptions {
  /**
   * Minimum lifetime of an entry, in milliseconds; Infinity for none. Entries may go earlier when `maxSize` is
   * reached.
   */
  maxAgeMs: number
  /** Maximum entries per generation; up to two generations are kept. */
  maxSize?: number
  now?: () => number
}

/**
 * Bounded map whose entries expire, without timers or sweeps: two generations of entries; the older one is dropped as a
 * whole. An entry lives between `maxAgeMs` and `2 * maxAgeMs`, counted from when it was last set.
 *
 * The alternative, deleting the first key of one large Map at each insertion, takes 38 µs at 100,000 entries, because
 * V8 walks over the deleted entries: a client that requests all ids in turn could keep the event loop busy with it.
 */
export class ExpiringMap<Key, Value> {
  #young = new Map<Key, Value>()
  #old = new Map<Key, Value>()
  #turnedAt: number
  readonly #maxAgeMs: number
  readonly #maxSize: number
  readonly #now: () => number

  constructor ({ maxAgeMs, maxSize = Infinity, now = performance.now.bind(performance) }: ExpiringMapOptions) {
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

  keys (): Key[] {
    return [...new Set([...this.#old.keys(), ...this.#young.keys()])]
  }

  get size (): number {
    return this.#young.size + this.#old.size
  }

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
