drop trigger if exists revoke_users on users;
drop table if exists login_attempts, known_addresses, sessions, revocations;
drop function if exists revoke_sessions(), revoke_users();
