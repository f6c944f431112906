drop index if exists videos_live_of_user_idx;
drop function if exists live_videos_of(bigint);

create or replace function count_new_likes() returns trigger language plpgsql as $$
begin
  insert into video_counters as c (video_id, like_count)
  select video_id, count(*) from added where liked group by video_id order by video_id
  on conflict (video_id) do update set like_count = c.like_count + excluded.like_count;
  return null;
end
$$;

create or replace function count_changed_likes() returns trigger language plpgsql as $$
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

create or replace function add_first_views() returns trigger language plpgsql as $$
begin
  update videos as v set view_count = v.view_count + added.view_n
  from added where v.id = added.video_id and added.view_n > 0;
  return null;
end
$$;

create or replace function add_further_views() returns trigger language plpgsql as $$
begin
  update videos as v
  set view_count = v.view_count + after.view_n - case when after.generation = before.generation then before.view_n else 0 end
  from after join before using (video_id)
  where v.id = after.video_id
    and (after.generation, after.view_n) is distinct from (before.generation, before.view_n) and after.view_n > 0;
  return null;
end
$$;

create or replace function count_removed_likes() returns trigger language plpgsql as $$
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

-- Nobody may find the accounts again that were deleted.
delete from users where id in (select user_id from deleted_users);
drop table if exists deleted_users;
