-- A join token says where its gateway is. None was made before: nothing could use one.
ALTER TABLE join_token ADD COLUMN location TEXT NOT NULL DEFAULT '';
