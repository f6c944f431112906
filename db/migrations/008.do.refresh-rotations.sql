-- Rotation of refresh tokens (services/accounts/sessions.ts). `generation` is the rotation number of the newest token.
-- `superseded` counts the tokens directly before it that were replaced unused, because their response was lost: the token that was
-- rotated last has the number generation - 1 - superseded, and `refreshed_at` is the time of its rotation. The arrays hold earlier
-- rotations of the last seconds: a tab that is late is told apart from a thief.
alter table sessions
  add column superseded integer not null default 0,
  add column recent_rotations integer[] not null default '{}',
  add column recent_rotated_at timestamptz[] not null default '{}';

-- During a rolling update the version before rotates without knowing `superseded`: its rotation supersedes nothing.
create function reset_superseded() returns trigger language plpgsql as $$
begin
  new.superseded := 0;
  return new;
end
$$;
create trigger reset_superseded before update on sessions for each row
  when (new.generation > old.generation and new.superseded = old.superseded and old.superseded > 0)
  execute function reset_superseded();
