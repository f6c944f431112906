drop trigger if exists reset_superseded on sessions;
drop function if exists reset_superseded();
alter table sessions drop column superseded, drop column recent_rotations, drop column recent_rotated_at;
