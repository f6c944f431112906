-- Lists leave adult content out for most who ask. With partial indexes the cost of a page does not depend on how
-- much of it there is.

-- GET /videos for everybody, and adult=exclude.
create index if not exists videos_general_newest_idx on videos (created_at desc, id desc) where not is_adult_content;

-- GET /videos?live=true for everybody.
create index if not exists videos_live_general_newest_idx on videos (created_at desc, id desc) where is_live and not is_adult_content;

-- GET /videos?adult=only.
create index if not exists videos_adult_newest_idx on videos (created_at desc, id desc) where is_adult_content;
