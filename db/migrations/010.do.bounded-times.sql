-- Times that JSON and cursors can express: from year 1 to 9999 (RFC 3339). Infinite ones, which old databases may have, become now.
do $$
declare
  part record;
  repaired bigint;
begin
  for part in select * from (values ('users', 'created_at'), ('users', 'updated_at'), ('videos', 'created_at'), ('videos', 'updated_at'))
    as parts (table_name, column_name)
  loop
    execute format($statement$
      update %1$I set %2$I = case
        when not isfinite(%2$I) then now()
        else least(greatest(%2$I, timestamptz '0001-01-01 00:00:00+00'), timestamptz '9999-12-31 23:59:59.999999+00') end
      where %2$I < timestamptz '0001-01-01 00:00:00+00' or %2$I > timestamptz '9999-12-31 23:59:59.999999+00'
    $statement$, part.table_name, part.column_name);
    get diagnostics repaired = row_count;
    if repaired > 0 then
      raise notice 'HALO: % rows of %.% had a time outside the years 1 to 9999, and have the nearest one, or now, instead',
        repaired, part.table_name, part.column_name;
    end if;
    execute format($statement$
      alter table %1$I add constraint %3$I check (%2$I >= '0001-01-01 00:00:00+00' and %2$I <= '9999-12-31 23:59:59.999999+00') not valid
    $statement$, part.table_name, part.column_name, part.table_name || '_' || part.column_name || '_range');
  end loop;
end
$$;

-- The Go service's databases may have a trigger that sets updated_at at every update of a video, also at the flush of its views. Where
-- there is one, this trigger, whose name is last in the alphabet, puts the time back when no content has changed.
create function keep_updated_at() returns trigger language plpgsql as $$
begin
  if row(new.user_id, new.title, new.description, new.thumbnail_url, new.stream_url, new.is_live, new.is_adult_content)
    is not distinct from
    row(old.user_id, old.title, old.description, old.thumbnail_url, old.stream_url, old.is_live, old.is_adult_content)
  then
    new.updated_at := old.updated_at;
  elsif new.updated_at <= old.updated_at and old.updated_at < clock_timestamp() + interval '1 hour' then
    -- Each version of the content has a time of its own.
    new.updated_at := old.updated_at + interval '1 millisecond';
  end if;
  return new;
end
$$;

do $$
begin
  if exists (
    select from pg_trigger where tgrelid = 'videos'::regclass and not tgisinternal
      -- Row-level, before, update.
      and tgtype & 1 = 1 and tgtype & 2 = 2 and tgtype & 16 = 16
  ) then
    create trigger zz_halo_keep_updated_at before update on videos for each row execute function keep_updated_at();
  end if;
end
$$;
