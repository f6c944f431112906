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
