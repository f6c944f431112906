drop index if exists videos_newest_idx;
drop index if exists videos_live_newest_idx;
drop index if exists videos_of_user_newest_idx;
