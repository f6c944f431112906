-- What a POST with an Idempotency-Key has created, for a day: a repeated request finds it and creates nothing. `use` is a hash of the
-- kind of request, its user and its key. The row is inserted by the statement that creates the rest, so that both exist or neither.
create table creation_receipts (
  use text primary key,
  fingerprint text not null,
  created_id bigint not null,
  created_at timestamptz not null default now()
);
-- Serves the purge.
create index creation_receipts_age_idx on creation_receipts (created_at);
