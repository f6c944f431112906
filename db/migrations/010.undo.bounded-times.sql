drop trigger if exists zz_halo_keep_updated_at on videos;
drop function if exists keep_updated_at();
alter table users drop constraint users_created_at_range, drop constraint users_updated_at_range;
alter table videos drop constraint videos_created_at_range, drop constraint videos_updated_at_range;
