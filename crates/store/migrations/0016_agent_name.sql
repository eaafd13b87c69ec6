-- The name that a caller has given an agent; NULL: it has the one that it reports, in name.
ALTER TABLE agent ADD COLUMN given_name TEXT;
