-- no transaction
-- The constraints of migration 010, checked for old rows without a lock that stops requests.
alter table users validate constraint users_created_at_range;
alter table users validate constraint users_updated_at_range;
alter table videos validate constraint videos_created_at_range;
alter table videos validate constraint videos_updated_at_range;
