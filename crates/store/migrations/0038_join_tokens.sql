-- The key that a gateway in a process of its own has joined with; a link will need it. A gateway that was deleted stays
-- as a record.
ALTER TABLE gateway ADD COLUMN public_key_sha256 TEXT;
ALTER TABLE gateway ADD COLUMN deleted_at BIGINT;

-- `gateway`: whose machine the one that joins replaces. `used_by`: which gateway it has become, with this key.
CREATE TABLE join_token (
    id TEXT NOT NULL PRIMARY KEY,
    secret_sha256 TEXT NOT NULL,
    gateway TEXT REFERENCES gateway (id) ON UPDATE CASCADE,
    expires_at BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    used_by TEXT REFERENCES gateway (id) ON UPDATE CASCADE,
    public_key_sha256 TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
