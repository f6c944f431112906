import type { Database } from '../stores/database.ts'

// One process at a time, and a bounded number of rows at a time. Nothing waits for it.
const deleteExpired = {
  name: 'purge_sessions',
  text: `
    with mine as (select where pg_try_advisory_xact_lock(4242006)),
      old_revocations as (delete from revocations where id = any(array(
        select r.id from mine, revocations r where r.until < now() limit 5000))),
      old_attempts as (delete from login_attempts where key = any(array(
        select a.key from mine, login_attempts a where greatest(a.last_at, a.running_at) < now() - interval '1 day' limit 5000))),
      old_addresses as (delete from known_addresses where ctid = any(array(
        select k.ctid from mine, known_addresses k where k.last_at < now() - interval '90 days' limit 5000))),
      old_receipts as (delete from creation_receipts where use = any(array(
        select c.use from mine, creation_receipts c where c.created_at < now() - interval '1 day' limit 5000)))
    delete from sessions where id = any(array(select s.id from mine, sessions s where s.expires_at < now() limit 5000))`
}

export interface ExpiredRowsOptions {
  /** Database for background work. */
  database: Database
  /** Milliseconds between two purges. */
  periodMs?: number
}

/** Deletes expired sessions, revocations, login attempts, known addresses and creation receipts, once a minute. */
export function createExpiredRowsPurge ({ database, periodMs = 60_000 }: ExpiredRowsOptions) {
  let timer: NodeJS.Timeout | undefined

  async function run (): Promise<void> {
    await database.query(deleteExpired)
  }

  return {
    start (): void {
      // The next purge deletes what this one could not.
      timer = setInterval(() => { run().catch(() => {}) }, periodMs).unref()
    },

    close (): void {
      clearInterval(timer)
    },

    run
  }
}
