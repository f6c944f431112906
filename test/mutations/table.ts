/** A bug of one line. */
export interface Mutation {
  file: string
  /** Stands in the file once. */
  from: string
  to: string
  /** The test file that it turns red. */
  test: string
  why: string
  /** It changes nothing: its test must stay green. */
  isControl?: boolean
}

export const mutations: Mutation[] = [
  {
    file: 'services/accounts/users.ts',
    from: 'where id = $1 and password_hash = $2 and ${isActive(\'users.id\')}\n      returning id\n    ), hidden',
    to: 'where id = $1 and $2::text is not null and ${isActive(\'users.id\')}\n      returning id\n    ), hidden',
    test: 'test/routes/account-deletion.test.ts',
    why: 'an account is deleted although its password was changed meanwhile'
  },
  {
    file: 'services/engagement/counters/ledger.ts',
    from: 'isGone: row.is_gone',
    to: 'isGone: true',
    test: 'test/services/engagement/counters/ledger.test.ts',
    why: 'a video or user that came back under the old id is forgotten as deleted'
  },
  {
    file: 'plugins/load-shedding.ts',
    from: '!isOverloaded || isProbe || isNeverShed ||',
    to: '!isOverloaded || isProbe ||',
    test: 'test/overload.test.ts',
    why: 'an overloaded process refuses its metrics'
  },
  {
    file: 'services/engagement/counters/scripts/forget.lua',
    from: '  redis.call(\'UNLINK\', ticket)\n',
    to: '\n',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'a like of a deleted user comes back from a load that was under way (Redis)'
  },
  {
    file: 'services/engagement/counters/ledger-merge.ts',
    from: 'else greatest(c.view_n, excluded.view_n) end',
    to: 'else excluded.view_n end',
    test: 'test/services/engagement/counters/ledger.test.ts',
    why: 'a lower total of views overwrites a higher one in the ledger'
  },
  {
    file: 'plugins/request-context.ts',
    from: '    inFlight++\n    response.on',
    to: '    response.on',
    test: 'test/overload.test.ts',
    why: 'requests in flight are not counted by load shedding'
  },
  {
    file: 'plugins/request-context.ts',
    from: 'queue?.add(onClose)',
    to: 'queue?.size',
    test: 'test/plugins/pipeline.test.ts',
    why: 'a pipelined request whose connection is closed is never counted as over'
  },
  {
    file: 'services/accounts/login-throttle.ts',
    from: 'failures + running < $2',
    to: 'failures < $2',
    test: 'test/services/accounts/login-throttle.test.ts',
    why: 'password tries that run at once are not counted against the free failures'
  },
  {
    file: 'services/runtime/log-redaction.ts',
    from: '/eyJ|halo_refresh_|halo1',
    to: '/eyJ|halo1',
    test: 'test/services/runtime/log-redaction.test.ts',
    why: 'refresh tokens stand in the log'
  },
  {
    file: 'services/runtime/log-redaction.ts',
    from: '/token|pass|pwd|',
    to: '/token|pwd|',
    test: 'test/services/runtime/log-redaction.test.ts',
    why: 'a password in a query stands in the log'
  },
  {
    file: 'services/http/client-key.ts',
    from: 'groups.slice(0, 4)',
    to: 'groups.slice(0, 8)',
    test: 'test/services/http/client-address.test.ts',
    why: 'every IPv6 address has a limit of its own, not every /64'
  },
  {
    file: 'services/traffic/limiter/token-buckets.ts',
    from: 'recent.get(client) ?? older.get(client) ?? 0',
    to: 'recent.get(client) ?? 0',
    test: 'test/services/traffic/limiter/token-buckets.test.ts',
    why: 'a bucket is full again as soon as the maps turn'
  },
  {
    file: 'services/traffic/limiter/token-buckets.ts',
    from: 'if (excessMs > 1e-3)',
    to: 'if (excessMs > 0)',
    test: 'test/services/traffic/limiter/token-buckets.test.ts',
    why: 'drift of fractions refuses a client that keeps to its rate'
  },
  {
    file: 'services/traffic/limiter/shared-buckets.ts',
    from: 'account.owed -= account.tokens',
    to: 'account.owed += 0',
    test: 'test/services/traffic/limiter/shared-buckets.test.ts',
    why: 'what is granted on credit is never taken from the shared bucket'
  },
  {
    file: 'services/traffic/limiter/limit.ts',
    from: 'violatedPolicies: [name]',
    to: 'violatedPolicies: []',
    test: 'test/plugins/rate-limit.test.ts',
    why: 'a 429 does not say which limit it was'
  },
  {
    file: 'services/http/response-cache.ts',
    from: 'bytes -= entries.get(key)?.bytes ?? 0',
    to: 'bytes -= 0',
    test: 'test/services/http/response-cache.test.ts',
    why: 'the cache does not give back the bytes of what it drops'
  },
  {
    file: 'services/http/response-cache.ts',
    from: 'if (entry && isUnavailable(error)) entry.failedAt = now()',
    to: 'if (entry && isUnavailable(error)) entry.failedAt = 0',
    test: 'test/services/http/response-cache.test.ts',
    why: 'a database that is unavailable is asked at every request'
  },
  {
    file: 'services/videos/cursors.ts',
    from: '.update(place).update(filters)',
    to: '.update(place)',
    test: 'test/routes/paging.test.ts',
    why: 'a cursor of one list is taken for another list'
  },
  {
    file: 'services/videos/cursors.ts',
    from: ' || bytes.toString(\'base64url\') !== cursor',
    to: '',
    test: 'test/routes/paging.test.ts',
    why: 'a cursor has several spellings'
  },
  {
    file: 'services/accounts/passwords.ts',
    from: 'Buffer.byteLength(password) <= 72',
    to: 'password.length <= 73',
    test: 'test/services/accounts/passwords.test.ts',
    why: 'a hash of which 72 bytes are known is made anew with an unchecked rest'
  },
  {
    file: 'services/accounts/password-worker.ts',
    from: 'update(password.normalize(\'NFKC\'))',
    to: 'update(password)',
    test: 'test/services/accounts/passwords.test.ts',
    why: 'one password typed on two keyboards has two hashes'
  },
  {
    file: 'services/accounts/password-worker.ts',
    from: 'if (!isEqual) spendDifference(task)',
    to: 'if (!isEqual) costOf(task.decoy)',
    test: 'test/services/accounts/passwords.test.ts',
    why: 'the time of a wrong password tells which emails have old hashes'
  },
  {
    file: 'services/engagement/counters/scripts/acknowledge.lua',
    from: 'if redis.call(\'HGET\', KEYS[6], field) == value then',
    to: 'if redis.call(\'HEXISTS\', KEYS[6], field) == 1 then',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'a like changed during a flush is taken for flushed (Redis)'
  },
  {
    file: 'services/engagement/counters/scripts/comments.lua',
    from: 'elseif isYoung and ARGV[p + 5] ~= ARGV[1] then',
    to: 'elseif isYoung and ARGV[p + 5] == \'\' then',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'an Idempotency-Key checked in an earlier generation counts twice (Redis)'
  },
  {
    file: 'services/engagement/counters/scripts/prelude.lua',
    from: 'state[1] == generation and tonumber(state[2] or \'0\') >= tonumber(looks)',
    to: 'state[1] == generation and looks ~= nil',
    test: 'test/services/engagement/counters/fence.test.ts',
    why: 'a Redis that was put back in time takes writes'
  },
  {
    file: 'services/engagement/counters/scripts/presence.lua',
    from: 'if session < 0 then return end',
    to: 'if session < 0 then session = -session end',
    test: 'test/routes/engagement.test.ts',
    why: 'one viewer is counted as a view again and again (Redis)'
  },
  {
    file: 'services/engagement/counters/memory-store.ts',
    from: 'if (state.removals !== removals) continue',
    to: 'if (state.removals < removals) continue',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'a like of a deleted user comes back from a load that was under way (memory)'
  },
  {
    file: 'services/engagement/counters/memory-store.ts',
    from: 'if (state?.pending.get(userId)?.version !== version) continue',
    to: 'if (!state?.pending.has(userId)) continue',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'a like changed during a flush is taken for flushed (memory)'
  },
  {
    file: 'services/engagement/counters/ledger.ts',
    from: 'legacy_likes = greatest(c.legacy_likes, excluded.legacy_likes)',
    to: 'legacy_likes = c.legacy_likes + excluded.legacy_likes',
    test: 'test/services/engagement/counters/takeover.test.ts',
    why: 'taking over the old counts twice adds them twice'
  },
  {
    file: 'services/engagement/engagement.ts',
    from: 'useOf(String(userId), key, payload)',
    to: 'useOf(\'\', key, payload)',
    test: 'test/routes/engagement.test.ts',
    why: 'the Idempotency-Key of one user answers another user'
  },
  {
    file: 'services/engagement/engagement.ts',
    from: '    live_viewers: null,',
    to: '    live_viewers: 0,',
    test: 'test/services/engagement/counters/fence.test.ts',
    why: 'without Redis unknown viewers are shown as zero'
  },
  {
    file: 'services/videos/videos.ts',
    from: 'delete from videos where id = $1 and user_id = $2 returning id',
    to: 'delete from videos where id = $1 and $2::bigint > 0 returning id',
    test: 'test/routes/publishing.test.ts',
    why: 'anybody deletes the video of anybody'
  },
  {
    file: 'services/videos/videos.ts',
    from: 'const last = rows.length > limit ? rows[limit - 1] : undefined',
    to: 'const last = rows.length > limit ? rows[limit] : undefined',
    test: 'test/routes/paging.test.ts',
    why: 'the page after a cursor skips a video'
  },
  {
    file: 'services/videos/videos.ts',
    from: 'if (!isShown(video, reader.view)) throw',
    to: 'if (!isShown(video, reader.view) && reader.isFresh) throw',
    test: 'test/routes/paging.test.ts',
    why: 'adult content is shown to everybody'
  },
  {
    file: 'services/accounts/adult-access.ts',
    from: 'select is_adult and adult_mode as',
    to: 'select is_adult or adult_mode as',
    test: 'test/routes/paging.test.ts',
    why: 'adult content is shown without adult mode'
  },
  {
    file: 'plugins/request-context.ts',
    from: 'if (!request.isEventStream) inFlight--',
    to: 'inFlight--',
    test: 'test/overload.test.ts',
    why: 'a stream that ends is subtracted twice from the requests in flight'
  },
  {
    file: 'plugins/method-not-allowed.ts',
    from: 'headers: { allow: allowed }',
    to: 'headers: {}',
    test: 'test/routes/bad-input.test.ts',
    why: 'a 405 has no Allow header'
  },
  {
    file: 'plugins/errors.ts',
    from: 'if (code) return new ApiError(code, { violations })',
    to: 'if (code) return new ApiError(code)',
    test: 'test/routes/bad-input.test.ts',
    why: 'a wrong id does not say where it stands'
  },
  {
    file: 'plugins/errors.ts',
    from: 'if (answer.retryAfter !== undefined) reply',
    to: 'if (answer.retryAfter === 0) reply',
    test: 'test/routes/sessions.test.ts',
    why: 'a 503 does not say when to come back'
  },
  {
    file: 'services/accounts/usernames.ts',
    from: '.length <= 1',
    to: '.length <= 2',
    test: 'test/routes/account.test.ts',
    why: 'a username mixes letters of two alphabets'
  },
  {
    file: 'services/http/urls.ts',
    from: 'return url.username === \'\' && url.password',
    to: 'return url.password',
    test: 'test/routes/publishing.test.ts',
    why: 'an address may hide its host behind user information'
  },
  {
    file: 'services/http/urls.ts',
    from: 'text === \'\' ? \'\' : new URL(text).href',
    to: 'text',
    test: 'test/routes/publishing.test.ts',
    why: 'an address is stored as it was spelled'
  },
  {
    file: 'services/accounts/users.ts',
    from: 'adult_mode = coalesce($6, adult_mode) and coalesce($5, is_adult)',
    to: 'adult_mode = coalesce($6, adult_mode)',
    test: 'test/routes/account.test.ts',
    why: 'who is no adult any more stays in adult mode'
  },
  {
    file: 'services/accounts/login-throttle.ts',
    from: 'if (attempt.isKnownAddress || await isSampled(keys.account)) return true',
    to: 'if (await isSampled(keys.account)) return true',
    test: 'test/routes/login-attempts.test.ts',
    why: 'a crowd of attackers locks the owner out at home'
  },
  {
    file: 'services/accounts/login-throttle.ts',
    from: 'if (inMemory.delete(attempt)) endInMemory()',
    to: 'if (Number(inMemory.delete(attempt)) > 1) endInMemory()',
    test: 'test/services/accounts/login-throttle.test.ts',
    why: 'an attempt that began in memory frees the slot of another in PostgreSQL'
  },
  {
    file: 'services/accounts/login-throttle.ts',
    from: 'set failures = 0, running',
    to: 'set failures = greatest(0, failures - 1), running',
    test: 'test/routes/login-attempts.test.ts',
    why: 'failures are not forgotten after the right password'
  },
  {
    file: 'services/accounts/access-tokens.ts',
    from: ' || aud !== audience || ',
    to: ' || ',
    test: 'test/routes/token-attacks.test.ts',
    why: 'a token for another service is accepted'
  },
  {
    file: 'services/accounts/access-tokens.ts',
    from: 'header[\'typ\'] !== tokenType',
    to: 'typeof header[\'typ\'] !== \'string\'',
    test: 'test/routes/token-attacks.test.ts',
    why: 'a token of another type is accepted'
  },
  {
    file: 'services/accounts/access-tokens.ts',
    from: 'if (!isCanonical(signature)) throw',
    to: 'if (signature === \'\') throw',
    test: 'test/routes/token-attacks.test.ts',
    why: 'one token has several spellings'
  },
  {
    file: 'services/accounts/access-tokens.ts',
    from: 'Math.min(lifetimeSeconds, Math.floor(sessionEndsAt.getTime() / 1000) - now)',
    to: 'lifetimeSeconds',
    test: 'test/routes/sessions.test.ts',
    why: 'an access token outlives its session'
  },
  {
    file: 'services/runtime/log-redaction.ts',
    from: 'text.replace(controls, character',
    to: 'text.replace(/\\u009b/g, character',
    test: 'test/services/runtime/controls-in-log.test.ts',
    why: 'control characters of a client reach the log'
  },
  {
    file: 'services/http/client-address.ts',
    from: 'end >= 0 && isTrusted(address);',
    to: 'end >= 0;',
    test: 'test/services/http/forwarded-address.test.ts',
    why: 'a client makes up its address by X-Forwarded-For'
  },
  {
    file: 'services/traffic/limiter/limit-fields.ts',
    from: 'const reset = String(Math.ceil((burst - left) / rate))',
    to: 'const reset = String(Math.ceil(burst / rate))',
    test: 'test/services/traffic/limiter/limit-fields.test.ts',
    why: 'the reset time of the RateLimit header does not depend on what is left'
  },
  {
    file: 'services/http/response-cache.ts',
    from: 'if (before && before.response.loadedAt > loadedAt) return before.response',
    to: 'if (before && before.response.loadedAt > loadedAt + 1e6) return before.response',
    test: 'test/services/http/overtaken-load.test.ts',
    why: 'a load that began before a write overwrites what was read after it'
  },
  {
    file: 'services/engagement/counters/ledger-merge.ts',
    from: 'where g.generation >= coalesce(f.generation, 0)',
    to: 'where g.generation >= 0',
    test: 'test/services/engagement/counters/ledger.test.ts',
    why: 'a flush of a generation that was left is merged into the ledger'
  },
  {
    file: 'services/engagement/counters/ledger-merge.ts',
    from: 'where (excluded.generation, excluded.version) > (l.generation, l.version)',
    to: 'where excluded.generation >= l.generation',
    test: 'test/services/engagement/counters/ledger.test.ts',
    why: 'an older change of a like, arriving late, overwrites a newer one'
  },
  {
    file: 'services/engagement/counters/ledger-merge.ts',
    from: 'where excluded.generation >= c.generation',
    to: 'where excluded.generation >= 0',
    test: 'test/services/engagement/counters/ledger.test.ts',
    why: 'totals of an earlier generation overwrite those of the present one'
  },
  {
    file: 'services/accounts/adult-access.ts',
    from: 'ask(userId).catch(() => none)',
    to: 'ask(userId).catch(() => all)',
    test: 'test/services/accounts/adult-access.test.ts',
    why: 'while the database is unavailable everybody is shown adult content'
  },
  {
    file: 'services/accounts/users.ts',
    from: 'update users set password_hash = $3 where id = $1 and password_hash = $2 returning id',
    to: 'update users set password_hash = $3 where id = $1 and $2::text is not null returning id',
    test: 'test/services/accounts/sessions.test.ts',
    why: 'a login that renews a hash undoes a password change at the same moment'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'and u.password_hash = coalesce($7, u.password_hash)',
    to: 'and coalesce($7, u.password_hash) is not null',
    test: 'test/services/accounts/sessions.test.ts',
    why: 'a login with the old password, at the moment of its change, gets a session'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'when $2 > generation then \'unknown\'',
    to: 'when $2 > generation then \'reused\'',
    test: 'test/services/accounts/sessions.test.ts',
    why: 'after a restore of the database a good refresh token is taken for a stolen one'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'set last_used_at = greatest(s.last_used_at, used.at)',
    to: 'set last_used_at = used.at',
    test: 'test/services/accounts/sessions.test.ts',
    why: 'the last use of a session goes back in time'
  },
  {
    file: 'services/accounts/expired-rows.ts',
    from: 'sessions s where s.expires_at < now() limit',
    to: 'sessions s where s.expires_at > now() limit',
    test: 'test/services/accounts/sessions.test.ts',
    why: 'the purge deletes the sessions that go on'
  },
  {
    file: 'services/accounts/expired-rows.ts',
    from: 'where r.until < now() limit',
    to: 'where r.until > now() limit',
    test: 'test/services/accounts/sessions.test.ts',
    why: 'the purge deletes the revocations that still count'
  },
  {
    file: 'plugins/errors.ts',
    from: 'request.url.split(\'?\', 1)[0]!, reqId)',
    to: 'request.url, reqId)',
    test: 'test/plugins/errors.test.ts',
    why: 'the query, with what secrets are in it, stands in the body of an error'
  },
  {
    file: 'services/engagement/engagement.ts',
    from: 'answer.catch(() => answers.delete(key))',
    to: 'answer.catch(() => {})',
    test: 'test/services/engagement/recent-answers.test.ts',
    why: 'a heartbeat that failed is answered with the failure for a second'
  },
  {
    file: 'services/accounts/access-tokens.ts',
    from: '[\'alg\', \'typ\', \'kid\'].includes(name)',
    to: '[\'alg\', \'typ\', \'kid\', \'jku\'].includes(name)',
    test: 'test/routes/token-attacks.test.ts',
    why: 'a token that names the address of its own key is accepted'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'where s.id = d.id and d.outcome = \'reused\'',
    to: 'where s.id = d.id and d.outcome = \'never\'',
    test: 'test/routes/sessions.test.ts',
    why: 'a stolen refresh token that comes again does not end the session'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'text: \'delete from sessions where id = $1 and user_id = $2 returning id\'',
    to: 'text: \'delete from sessions where id = $1 and $2::bigint > 0 returning id\'',
    test: 'test/routes/sessions.test.ts',
    why: 'anybody ends the session of anybody'
  },
  {
    file: 'services/http/urls.ts',
    from: '/** Maximum length of a stored URL, in UTF-16 code units. */',
    to: '/** Maximum length of a stored URL, in UTF-16  code units. */',
    test: 'test/services/runtime/log-redaction.test.ts',
    why: 'control: a space in a comment',
    isControl: true
  },
  {
    file: 'services/traffic/limiter/shared-buckets.ts',
    from: 'if (tokens === 0) account.deniedUntil = at + waitMs',
    to: 'if (tokens === 0) account.deniedUntil = at',
    test: 'test/services/traffic/limiter/shared-buckets.test.ts',
    why: 'a client whose shared bucket is empty is not refused'
  },
  {
    file: 'services/traffic/limiter/scripts/lease.lua',
    from: 'math.min(full_at + owed * per_token,',
    to: 'math.min(full_at,',
    test: 'test/services/traffic/limiter/shared-buckets.test.ts',
    why: 'tokens owed are not taken from the bucket in Redis'
  },
  {
    file: 'services/engagement/engagement.ts',
    from: 'if (used.fingerprint !== once.fingerprint) throw',
    to: 'if (used.fingerprint === \'\') throw',
    test: 'test/routes/engagement.test.ts',
    why: 'an Idempotency-Key is taken for another payload'
  },
  {
    file: 'services/engagement/engagement.ts',
    from: 'Math.max(0, total - known) : stored',
    to: 'total : stored',
    test: 'test/routes/engagement.test.ts',
    why: 'flushed views and comments are counted twice'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'when $2 = rotated then \'replaced\'',
    to: 'when $2 = rotated then \'reused\'',
    test: 'test/routes/refresh-rotation.test.ts',
    why: 'a refresh whose answer was lost ends the session after ten seconds'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'when $2 = any(recent_rotations) then \'late\'',
    to: 'when $2 = any(recent_rotations) then \'reused\'',
    test: 'test/routes/refresh-rotation.test.ts',
    why: 'a tab that refreshes a moment late ends the session'
  },
  {
    file: 'services/accounts/sessions.ts',
    from: 'superseded = case d.outcome when \'replaced\' then s.superseded + 1 else 0 end',
    to: 'superseded = 0',
    test: 'test/routes/refresh-rotation.test.ts',
    why: 'a revoked refresh token works again'
  },
  {
    file: 'services/engagement/counters/scripts/presence.lua',
    from: 'if name ~= client and tonumber(at)',
    to: 'if name == client and tonumber(at)',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'a departing tab ends the presence of the others (Redis)'
  },
  {
    file: 'services/engagement/counters/memory-store.ts',
    from: 'name !== client && at',
    to: 'name === client && at',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'a departing tab ends the presence of the others (memory)'
  },
  {
    file: 'services/engagement/counters/scripts/is-same-server.lua',
    from: 'state[2] == run',
    to: 'state[2] ~= nil',
    test: 'test/services/engagement/counters/store.test.ts',
    why: 'a Redis that was restarted is taken for the one where the generation began'
  },
  {
    file: 'services/engagement/counters/durability.ts',
    from: 'if (comments > 0) await confirm',
    to: 'if (comments < 0) await confirm',
    test: 'test/services/engagement/counters/durability.test.ts',
    why: 'COUNTER_DURABILITY=flushed acknowledges a comment before PostgreSQL has it'
  },
  {
    file: 'services/engagement/counters/ledger.ts',
    from: 'and c.comment_n >= w.comments',
    to: 'and c.comment_n >= 0',
    test: 'test/services/engagement/counters/ledger.test.ts',
    why: 'a write is confirmed by a total that lacks it'
  },
  {
    file: 'services/videos/videos.ts',
    from: 'is null or ${version(\'videos\')} = any($11::bigint[]))',
    to: 'is null or true)',
    test: 'test/routes/publishing.test.ts',
    why: 'If-Match does not keep from overwriting a newer version'
  },
  {
    file: 'services/stores/creation-receipts.ts',
    from: 'if (row.fingerprint !== fingerprint)',
    to: 'if (row.fingerprint === \'\')',
    test: 'test/routes/publishing.test.ts',
    why: 'an Idempotency-Key with another payload answers with the first video'
  },
  {
    file: 'services/shared/visible-text.ts',
    from: 'expected.pop() !== control',
    to: 'expected.pop() === \'\'',
    test: 'test/services/shared/visible-text.test.ts',
    why: 'a direction override is taken for a closed control'
  },
  {
    file: 'plugins/recent-writers.ts',
    from: '|| request.routeOptions.config.isNoContentWrite',
    to: '|| false',
    test: 'test/routes/read-path.test.ts',
    why: 'every viewer bypasses the response cache'
  },
  {
    file: 'services/videos/cursors.ts',
    from: 'keys.some(key => timing',
    to: 'keys.slice(0, 1).some(key => timing',
    test: 'test/routes/paging.test.ts',
    why: 'a change of the secret ends all cursors'
  }
]
