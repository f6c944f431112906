drop index if exists videos_live_of_user_idx;
drop function if exists live_videos_of(bigint);
