-- The SHA-256 of the token with all scopes: every server accepts it, and none can tell it.
CREATE TABLE admin_token (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    sha256 TEXT NOT NULL,
    set_at BIGINT NOT NULL
);
