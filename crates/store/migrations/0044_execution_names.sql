-- The names of resource and actor when the execution was recorded: they are told after both were renamed or deleted. NULL: without a
-- name, or recorded before.
ALTER TABLE execution ADD COLUMN resource_name TEXT;
ALTER TABLE execution ADD COLUMN actor_name TEXT;
