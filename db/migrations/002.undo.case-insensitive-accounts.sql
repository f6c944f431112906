drop trigger if exists users_fill_keys on users;
drop function if exists users_fill_keys();
alter table users drop column if exists email_key, drop column if exists username_key;
