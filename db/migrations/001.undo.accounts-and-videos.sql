drop table if exists videos;
drop table if exists users;
