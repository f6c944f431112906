-- Each index serves one list, in the order in which the list is read: newest first, id as the tie-break.

-- GET /videos: all videos, and the recorded ones (most are recorded: few rows are passed over).
create index if not exists videos_newest_idx on videos (created_at desc, id desc);

-- GET /videos?live=true: few of many, so that the index holds nothing else.
create index if not exists videos_live_newest_idx on videos (created_at desc, id desc) where is_live;

-- GET /users/:user_id/videos; also what the cascade of a deleted user looks up.
create index if not exists videos_of_user_newest_idx on videos (user_id, created_at desc, id desc);
