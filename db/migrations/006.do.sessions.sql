-- Who is logged in. A refresh token names a session and a generation of it and is signed, so that nothing that
-- logs anybody in is kept here. The index on user_id serves the list of a user's sessions and the cascade.
create table sessions (
  id text primary key,
  user_id bigint not null references users (id) on delete cascade,
  generation integer not null default 0,
  refreshed_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  last_used_at timestamptz not null default now(),
  expires_at timestamptz not null,
  -- When the last access token that was given out for it has expired.
  tokens_until timestamptz not null,
  address text not null,
  user_agent text not null
);
create index sessions_of_user_idx on sessions (user_id, last_used_at desc);
create index sessions_end_idx on sessions (expires_at);

-- What every process learns within a second: a session that has ended, while its access tokens would still be good;
-- or (session_id is null) that no token of the Go service of a user counts any more that was issued until then, but one.
-- A row carries its transaction, because transactions end in another order than they begin: readers take what is
-- older than every open one. See services/revocations.ts.
create table revocations (
  id bigint generated always as identity primary key,
  session_id text,
  user_id bigint not null,
  except_session_id text,
  revoked_at timestamptz not null default now(),
  -- When nothing is left that it could be about.
  until timestamptz not null,
  transaction_id xid8 not null default pg_current_xact_id()
);
create index revocations_order_idx on revocations (transaction_id, id);
create index revocations_end_idx on revocations (until);

-- However a session ends (by its owner, with its user, by hand), its tokens end with it.
create function revoke_sessions() returns trigger language plpgsql as $$
begin
  insert into revocations (session_id, user_id, until) select id, user_id, tokens_until from removed where tokens_until > now();
  return null;
end
$$;
create trigger revoke_sessions after delete on sessions
  referencing old table as removed for each statement execute function revoke_sessions();

create function revoke_users() returns trigger language plpgsql as $$
begin
  -- Nobody knows for how long the Go service made its tokens good: for a day, unless configured.
  insert into revocations (user_id, until) select id, now() + interval '31 days' from removed;
  return null;
end
$$;
create trigger revoke_users after delete on users
  referencing old table as removed for each statement execute function revoke_users();

-- How often a password was tried in vain, by address and by account and address, and how often at all, by account; the
-- keys are hashes. What is lost with an unlogged table in a crash is a few minutes of it.
create unlogged table login_attempts (
  key text primary key,
  -- Tries that have failed (by account: tries in this window), and when the last one did (when the window began).
  failures integer not null default 0,
  last_at timestamptz not null default now(),
  -- By account: tries in the window before.
  previous integer not null default 0,
  -- Tries that have not ended yet.
  running integer not null default 0,
  running_at timestamptz not null default now()
);
create index login_attempts_age_idx on login_attempts (greatest(last_at, running_at));

-- Where users have logged in, by network: others cannot lock them out there.
create table known_addresses (
  user_id bigint not null references users (id) on delete cascade,
  address text not null,
  last_at timestamptz not null default now(),
  primary key (user_id, address)
);
create index known_addresses_age_idx on known_addresses (last_at);

-- In databases of the Go service these may be too short for what is kept in them now.
alter table users alter column password_hash type text, alter column bio type text, alter column avatar_url type text;
alter table videos alter column description type text, alter column thumbnail_url type text, alter column stream_url type text;
