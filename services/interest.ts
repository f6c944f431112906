/** Whether anybody still waits for what is being done. */
export class Interest {
  #isOver = false
  #members = 0
  readonly #listeners = new Set<() => void>()

  get isOver (): boolean { return this.#isOver }

  /** Nobody waits any more. */
  end (): void {
    if (this.#isOver) return
    this.#isOver = true
    for (const listener of this.#listeners) listener()
    this.#listeners.clear()
  }

  /** Calls back when nobody waits any more, at once if that is so; what it returns takes that back. */
  onEnd (listener: () => void): () => void {
    if (this.#isOver) listener()
    else this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  /** One more of those who wait together: when all of them have left, nobody waits. Without an interest of its own it stays. */
  join (member: Interest | undefined): void {
    this.#members++
    member?.onEnd(() => { if (--this.#members === 0) this.end() })
  }
}
