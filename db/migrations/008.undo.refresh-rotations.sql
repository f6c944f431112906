alter table sessions drop column superseded, drop column recent_rotations, drop column recent_rotated_at;
