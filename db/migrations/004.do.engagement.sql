-- The ledger of the counters. Redis (or the process) counts from zero in each generation and the ledger merges
-- absolute totals by their maximum, so that a total that arrives twice, late or from a process that was
-- believed dead changes nothing. See services/counters/ledger.ts.

-- A generation is a life of the store's memory: a new one begins when Redis was restarted, promoted or emptied.
create sequence counter_generations;

-- The generation of each shard that takes writes. A flush of an earlier one that comes late, from a process that
-- hung in it, is ignored: what it knows was lost with that generation, or was merged when it was closed.
-- Flushes hold the row for share while they write; whoever begins a generation waits for them.
create table counter_fences (
  shard integer primary key,
  generation bigint not null
);

-- One row a video, so that a list of videos needs one join. `n` is the largest total seen of `generation`.
-- Views have no base here: videos.view_count holds base + n in one number, kept by a trigger below, because
-- other readers of this database know that column.
create table video_counters (
  video_id bigint primary key references videos (id) on delete cascade,
  generation bigint not null default 0,
  view_n bigint not null default 0,
  -- What earlier generations came to.
  comment_base bigint not null default 0,
  comment_n bigint not null default 0,
  -- Rows of video_likes with liked, kept by triggers in the transaction that changes them.
  like_count bigint not null default 0,
  peak_live_viewers bigint not null default 0,
  -- What the Go service had counted in Redis without saying who: taken over by maximum.
  legacy_likes bigint not null default 0,
  legacy_comments bigint not null default 0
) with (fillfactor = 70); -- updated each second while a video is watched: room for the new version in the page

-- Who likes what. An undone like stays as a row, for the order of (generation, version) to be kept.
-- The primary key serves the loading of one video's likes; the index the cascade of a deleted user.
create table video_likes (
  video_id bigint not null references videos (id) on delete cascade,
  user_id bigint not null references users (id) on delete cascade,
  liked boolean not null,
  generation bigint not null,
  version bigint not null,
  primary key (video_id, user_id)
);
create index video_likes_of_user_idx on video_likes (user_id);

-- Comments that came with an Idempotency-Key, for a day: whoever repeats one after Redis lost its memory is told
-- from whoever comments anew. `use` is a hash of user and key. The index serves the purge.
create table comment_receipts (
  video_id bigint not null references videos (id) on delete cascade,
  use text not null,
  fingerprint text not null,
  counted_at timestamptz not null default now(),
  primary key (video_id, use)
);
create index comment_receipts_age_idx on comment_receipts (counted_at);

-- What the stores must forget, written by the triggers below and read by every process each second: a video
-- that is gone (user_id is null), or a like that went with its user. A row carries its transaction, because
-- transactions end in another order than they begin: readers take what is older than every open one.
create table counter_tombstones (
  id bigint generated always as identity primary key,
  video_id bigint not null,
  user_id bigint,
  transaction_id xid8 not null default pg_current_xact_id(),
  buried_at timestamptz not null default now()
);
create index counter_tombstones_order_idx on counter_tombstones (transaction_id, id);

create function bury_videos() returns trigger language plpgsql as $$
begin
  insert into counter_tombstones (video_id) select id from removed;
  return null;
end
$$;
create trigger bury_videos after delete on videos
  referencing old table as removed for each statement execute function bury_videos();

-- The triggers on likes work on the rows of a whole statement at once: a flush of ten thousand likes is one
-- update of the counts. They see the row that really was there before, which a query beside the upsert would
-- not. Rows are locked in the order of their ids, so that two of them never wait for each other.
create function count_new_likes() returns trigger language plpgsql as $$
begin
  insert into video_counters as c (video_id, like_count)
  select video_id, count(*) from added where liked group by video_id order by video_id
  on conflict (video_id) do update set like_count = c.like_count + excluded.like_count;
  return null;
end
$$;

create function count_changed_likes() returns trigger language plpgsql as $$
begin
  insert into video_counters as c (video_id, like_count)
  select after.video_id, sum(after.liked::int - before.liked::int)
  from after join before using (video_id, user_id)
  group by after.video_id
  having sum(after.liked::int - before.liked::int) <> 0
  order by after.video_id
  on conflict (video_id) do update set like_count = c.like_count + excluded.like_count;
  return null;
end
$$;

-- A deleted user's likes go, and the stores are told. A deleted video has no row any more, and needs neither.
create function count_removed_likes() returns trigger language plpgsql as $$
begin
  perform from video_counters where video_id in (select video_id from removed) order by video_id for update;
  update video_counters as c set like_count = c.like_count - gone.likes
  from (select video_id, count(*) as likes from removed where liked group by video_id) as gone
  where c.video_id = gone.video_id;
  insert into counter_tombstones (video_id, user_id)
  select r.video_id, r.user_id from removed r join videos v on v.id = r.video_id
  where r.liked and not exists (select from users u where u.id = r.user_id);
  return null;
end
$$;

create trigger count_new_likes after insert on video_likes
  referencing new table as added for each statement execute function count_new_likes();
create trigger count_changed_likes after update on video_likes
  referencing old table as before new table as after for each statement execute function count_changed_likes();
create trigger count_removed_likes after delete on video_likes
  referencing old table as removed for each statement execute function count_removed_likes();

-- videos.view_count grows by what the ledger grows: the whole total where a generation begins, else the difference.
create function add_first_views() returns trigger language plpgsql as $$
begin
  update videos as v set view_count = v.view_count + added.view_n
  from added where v.id = added.video_id and added.view_n > 0;
  return null;
end
$$;

create function add_further_views() returns trigger language plpgsql as $$
begin
  update videos as v
  set view_count = v.view_count + after.view_n - case when after.generation = before.generation then before.view_n else 0 end
  from after join before using (video_id)
  where v.id = after.video_id
    and (after.generation, after.view_n) is distinct from (before.generation, before.view_n) and after.view_n > 0;
  return null;
end
$$;

create trigger add_first_views after insert on video_counters
  referencing new table as added for each statement execute function add_first_views();
create trigger add_further_views after update on video_counters
  referencing old table as before new table as after for each statement execute function add_further_views();
