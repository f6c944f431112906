import { ApiError } from '../shared/errors.ts'
import type { IdempotentUse } from '../shared/idempotency.ts'
import type { Database } from './database.ts'

const findReceipt = {
  name: 'find_creation_receipt',
  text: 'select fingerprint, created_id from creation_receipts where use = $1'
}

/**
 * Creates something once for each use of an Idempotency-Key (a day long). `create` inserts a row of
 * `creation_receipts` in the same statement; of two concurrent uses, the second waits for the first one's commit and
 * then fails with a violation of a unique constraint, or is refused by a quota that the first one filled.
 *
 * @param once undefined for a request without a key
 * @returns what `create` returned, or the id of what was created before
 * @throws ApiError `idempotency_key_reused` when the key was used with another payload
 */
export async function createOnce<Created> (
  database: Database,
  once: IdempotentUse | undefined,
  create: () => Promise<Created>
): Promise<{ created: Created } | { replayedId: number }> {
  const before = once && await replay(database, once)
  if (before) return before
  try {
    return { created: await create() }
  } catch (error) {
    // A concurrent use may have come first: then this one violates something unique, or a quota that the other filled.
    const isUnavailable = error instanceof ApiError && error.statusCode >= 500
    const concurrent = isUnavailable ? undefined : once && await replay(database, once)
    if (!concurrent) throw error
    return concurrent
  }
}

async function replay (database: Database, { use, fingerprint }: IdempotentUse) {
  const [row] = await database.query<{ fingerprint: string, created_id: number }>(findReceipt, [use])
  if (!row) return undefined
  if (row.fingerprint !== fingerprint) throw new ApiError('idempotency_key_reused')
  return { replayedId: row.created_id }
}
