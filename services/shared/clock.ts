/** Milliseconds since 1970 by a clock that never goes back within a process; for comparing moments, not for showing them. */
export const steadyNow = (): number => performance.timeOrigin + performance.now()
