-- The last complete backup: when its rows were read, the size of the file, and which version made it. `era`: the installation's at
-- that time. A restore begins another era, so a restored database does not take the backup that it is from for one of its own.
CREATE TABLE last_backup (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    era BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    version TEXT NOT NULL
);
