drop index if exists videos_general_newest_idx;
drop index if exists videos_live_general_newest_idx;
drop index if exists videos_adult_newest_idx;
