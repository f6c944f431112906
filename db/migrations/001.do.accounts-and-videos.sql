-- The two tables of the contract. Databases of the Go service have them already, with rows: every
-- statement here also comes up on those and keeps each row as it is. Where such a table differs from
-- the contract (a missing default, a null, a timestamp without zone) it is brought up to it.

create table if not exists users (
  id bigserial primary key,
  email text not null,
  username text not null,
  password_hash text not null,
  display_name text not null default '',
  bio text not null default '',
  avatar_url text not null default '',
  is_adult boolean not null default false,
  adult_mode boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint users_email_key unique (email),
  constraint users_username_key unique (username)
);

create table if not exists videos (
  id bigserial primary key,
  user_id bigint not null,
  title text not null,
  description text not null default '',
  thumbnail_url text not null default '',
  stream_url text not null default '',
  is_live boolean not null default false,
  is_adult_content boolean not null default false,
  view_count bigint not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint videos_user_id_fkey foreign key (user_id) references users (id) on delete cascade
);

-- The Go service wrote UTC into columns that may not say so; without a zone each reader would guess.
do $$
declare
  found record;
begin
  for found in
    select table_name, column_name
    from information_schema.columns
    where table_schema = current_schema()
      and table_name in ('users', 'videos')
      and column_name in ('created_at', 'updated_at')
      and data_type = 'timestamp without time zone'
  loop
    execute format('alter table %I alter column %I type timestamptz using %I at time zone ''UTC''',
      found.table_name, found.column_name, found.column_name);
  end loop;
end
$$;

-- A text that was never set is '', a flag false, a time now: in old rows as in those to come.
update users set
  display_name = coalesce(display_name, ''), bio = coalesce(bio, ''), avatar_url = coalesce(avatar_url, ''),
  is_adult = coalesce(is_adult, false), adult_mode = coalesce(adult_mode, false),
  created_at = coalesce(created_at, now()), updated_at = coalesce(updated_at, created_at, now())
where display_name is null or bio is null or avatar_url is null or is_adult is null
   or adult_mode is null or created_at is null or updated_at is null;

update videos set
  title = coalesce(title, ''), description = coalesce(description, ''),
  thumbnail_url = coalesce(thumbnail_url, ''), stream_url = coalesce(stream_url, ''),
  is_live = coalesce(is_live, false), is_adult_content = coalesce(is_adult_content, false),
  view_count = coalesce(view_count, 0),
  created_at = coalesce(created_at, now()), updated_at = coalesce(updated_at, created_at, now())
where title is null or description is null or thumbnail_url is null or stream_url is null or is_live is null
   or is_adult_content is null or view_count is null or created_at is null or updated_at is null;

alter table users
  alter column display_name set default '', alter column display_name set not null,
  alter column bio set default '', alter column bio set not null,
  alter column avatar_url set default '', alter column avatar_url set not null,
  alter column is_adult set default false, alter column is_adult set not null,
  alter column adult_mode set default false, alter column adult_mode set not null,
  alter column created_at set default now(), alter column created_at set not null,
  alter column updated_at set default now(), alter column updated_at set not null;

alter table videos
  alter column title set not null,
  alter column description set default '', alter column description set not null,
  alter column thumbnail_url set default '', alter column thumbnail_url set not null,
  alter column stream_url set default '', alter column stream_url set not null,
  alter column is_live set default false, alter column is_live set not null,
  alter column is_adult_content set default false, alter column is_adult_content set not null,
  alter column view_count type bigint, alter column view_count set default 0, alter column view_count set not null,
  alter column created_at set default now(), alter column created_at set not null,
  alter column updated_at set default now(), alter column updated_at set not null;
