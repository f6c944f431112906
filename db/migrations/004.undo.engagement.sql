drop trigger if exists bury_videos on videos;
drop table if exists counter_fences, counter_tombstones, comment_receipts, video_likes, video_counters;
drop function if exists bury_videos(), count_new_likes(), count_changed_likes(), count_removed_likes(), add_first_views(), add_further_views();
drop sequence if exists counter_generations;
