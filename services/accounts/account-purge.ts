import type { Database, Statement } from '../stores/database.ts'

export interface AccountPurgeOptions {
  /** Database for background work. */
  database: Database
  /** Milliseconds between two searches for deleted accounts that still have rows. */
  periodMs?: number
  onError?: (error: unknown) => void
}

// Each step holds an advisory lock while it runs, so that one process at a time does the work. Rows that are locked
// by others are left for the next step, so that no step waits.
const mine = 'mine as (select where pg_try_advisory_xact_lock(4242007))'

const deleteVideos = {
  name: 'purge_videos_of_deleted_users',
  text: `
    with ${mine}, gone as (
      delete from videos where id = any(array(
        select v.id from mine, deleted_users d join videos v on v.user_id = d.user_id limit 500 for update of v skip locked))
      returning 1
    )
    select count(*) as count from gone`
}

const deleteLikes = {
  name: 'purge_likes_of_deleted_users',
  text: `
    with ${mine}, gone as (
      delete from video_likes where (video_id, user_id) in (
        select l.video_id, l.user_id from mine, deleted_users d join video_likes l on l.user_id = d.user_id limit 2000 for update of l skip locked)
      returning 1
    )
    select count(*) as count from gone`
}

const deleteUsers = {
  name: 'purge_deleted_users',
  text: `
    with ${mine}, gone as (
      delete from users where id = any(array(
        select d.user_id from mine, deleted_users d
        where not exists (select from videos v where v.user_id = d.user_id) and not exists (select from video_likes l where l.user_id = d.user_id)
        limit 100))
      returning 1
    )
    select count(*) as count from gone`
}

export type AccountPurge = ReturnType<typeof createAccountPurge>

/**
 * Removes the rows of deleted accounts in bounded batches: their videos, then their likes, then the accounts. An
 * interrupted purge continues after a restart, on any process.
 */
export function createAccountPurge ({ database, periodMs = 5000, onError = () => {} }: AccountPurgeOptions) {
  let timer: NodeJS.Timeout | undefined
  let underWay: Promise<void> | undefined
  let isClosed = false

  async function purgeAll (): Promise<void> {
    for (const statement of [deleteVideos, deleteLikes, deleteUsers]) {
      while (await removeSome(statement) > 0) if (isClosed) return
    }
  }

  async function removeSome (statement: Statement): Promise<number> {
    const [row] = await database.query<{ count: number }>(statement)
    return row!.count
  }

  function run (): Promise<void> {
    underWay ??= purgeAll().catch(onError).finally(() => {
      underWay = undefined
    })
    return underWay
  }

  function schedule (): void {
    if (isClosed) return
    timer = setTimeout(() => {
      run().finally(schedule)
    }, periodMs).unref()
  }

  return {
    start: schedule,

    /** Starts a purge at once, after a deletion. Never rejects. */
    run,

    /** Stops after the running statement. */
    async close (): Promise<void> {
      isClosed = true
      clearTimeout(timer)
      await underWay
    }
  }
}
