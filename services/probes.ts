const probes = new Set(['/livez', '/readyz', '/startupz', '/health'])

/**
 * Whether a request is a probe of Kubernetes or a balancer. Probes are never limited or shed: a limiter must not be able to
 * kill a pod. They cost no store call each, because their answer is kept for a moment (dependencies.ts).
 */
export function isProbe ({ method, url = '' }: { method?: string | undefined, url?: string | undefined }): boolean {
  if (method !== 'GET' && method !== 'HEAD') return false
  const end = url.indexOf('?')
  return probes.has(end === -1 ? url : url.slice(0, end))
}
