-- Email and username are unique in any letter case and Unicode form. The comparison form is a column of
-- its own and not an index on lower(email): the Go service compared by the byte, so that two old rows
-- may differ in case alone. Both must stay and both must still log in. The oldest keeps the plain key;
-- a later twin gets a key that no email equals (U+0001 and the id follow it) and logs in by its exact email.
alter table users add column if not exists email_key text;
alter table users add column if not exists username_key text;

update users set email_key = keyed.email_key, username_key = keyed.username_key
from (
  select id,
    lower(normalize(email, nfkc)) || case when row_number() over (
      partition by lower(normalize(email, nfkc)) order by id) = 1 then '' else E'\x01' || id end as email_key,
    lower(normalize(username, nfkc)) || case when row_number() over (
      partition by lower(normalize(username, nfkc)) order by id) = 1 then '' else E'\x01' || id end as username_key
  from users
) as keyed
where users.id = keyed.id and (users.email_key is null or users.username_key is null);

-- Whoever inserts without the keys (the Go service, until it is switched off) gets them here; the
-- service itself sends them, because Node's case folding does not depend on the database's locale.
create or replace function users_fill_keys() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' then
    if new.email is distinct from old.email and new.email_key is not distinct from old.email_key then
      new.email_key := null;
    end if;
    if new.username is distinct from old.username and new.username_key is not distinct from old.username_key then
      new.username_key := null;
    end if;
  end if;
  new.email_key := coalesce(new.email_key, lower(normalize(new.email, nfkc)));
  new.username_key := coalesce(new.username_key, lower(normalize(new.username, nfkc)));
  return new;
end
$$;

create or replace trigger users_fill_keys before insert or update on users
  for each row execute function users_fill_keys();

alter table users
  alter column email_key set not null,
  alter column username_key set not null,
  add constraint users_email_key_key unique (email_key),
  add constraint users_username_key_key unique (username_key);
