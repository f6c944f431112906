/** Monotonic milliseconds since 1970; for comparing moments within a process, not for showing them. */
export const steadyNow = (): number => performance.timeOrigin + performance.now()
