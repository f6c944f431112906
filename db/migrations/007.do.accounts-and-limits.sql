-- How many videos of a user are live, for the limit on them. The user's row is locked, and as a function in plpgsql is
-- volatile it counts in a snapshot that was taken after the lock: of two requests at once one sees the other's video.
create function live_videos_of(owner bigint) returns integer language plpgsql as $$
begin
  perform from users where id = owner for no key update;
  return (select count(*) from videos where user_id = owner and is_live);
end
$$;

-- Serves live_videos_of: few of a user's videos are live.
create index if not exists videos_live_of_user_idx on videos (user_id) where is_live;

-- Accounts that were deleted and whose rows are still to go, which takes long when there are many. From the moment when a
-- row stands here the account, its profile and its videos are hidden from every query; its email and username are free, and
-- nobody logs in to it. See services/account-purge.ts.
create table deleted_users (
  user_id bigint primary key references users (id) on delete cascade,
  deleted_at timestamptz not null default now()
);

-- The triggers of migration 004 again. A plpgsql function keeps the plan of each statement from its first call, and a
-- statement without parameters never gets another one: a connection whose first flush had one counter updated 2,500 of them
-- by nested loops for good, 13 to 25 times slower (PostgreSQL 15 and 18). `execute` plans it for the rows that there are.
create or replace function count_new_likes() returns trigger language plpgsql as $$
begin
  execute $statement$
    insert into video_counters as c (video_id, like_count)
    select video_id, count(*) from added where liked group by video_id order by video_id
    on conflict (video_id) do update set like_count = c.like_count + excluded.like_count
  $statement$;
  return null;
end
$$;

create or replace function count_changed_likes() returns trigger language plpgsql as $$
begin
  execute $statement$
    insert into video_counters as c (video_id, like_count)
    select after.video_id, sum(after.liked::int - before.liked::int)
    from after join before using (video_id, user_id)
    group by after.video_id
    having sum(after.liked::int - before.liked::int) <> 0
    order by after.video_id
    on conflict (video_id) do update set like_count = c.like_count + excluded.like_count
  $statement$;
  return null;
end
$$;

create or replace function add_first_views() returns trigger language plpgsql as $$
begin
  execute $statement$
    update videos as v set view_count = v.view_count + added.view_n
    from added where v.id = added.video_id and added.view_n > 0
  $statement$;
  return null;
end
$$;

create or replace function add_further_views() returns trigger language plpgsql as $$
begin
  execute $statement$
    update videos as v
    set view_count = v.view_count + after.view_n - case when after.generation = before.generation then before.view_n else 0 end
    from after join before using (video_id)
    where v.id = after.video_id
      and (after.generation, after.view_n) is distinct from (before.generation, before.view_n) and after.view_n > 0
  $statement$;
  return null;
end
$$;

-- Also for likes of a deleted account that go before its user: the stores are told of them as well.
create or replace function count_removed_likes() returns trigger language plpgsql as $$
begin
  execute $statement$
    select from video_counters where video_id in (select video_id from removed) order by video_id for update
  $statement$;
  execute $statement$
    update video_counters as c set like_count = c.like_count - gone.likes
    from (select video_id, count(*) as likes from removed where liked group by video_id) as gone
    where c.video_id = gone.video_id
  $statement$;
  execute $statement$
    insert into counter_tombstones (video_id, user_id)
    select r.video_id, r.user_id from removed r join videos v on v.id = r.video_id
    where r.liked and (not exists (select from users u where u.id = r.user_id) or exists (select from deleted_users d where d.user_id = r.user_id))
  $statement$;
  return null;
end
$$;
