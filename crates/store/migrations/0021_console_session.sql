-- Sessions of the web console. Only the hash of a session's token is stored. `credential` is what proves that the session
-- may go on: a hash of the admin token, the id of an API account, or the organization of a user of an identity provider.
CREATE TABLE console_session (
    token_sha256 TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    credential TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX console_session_actor ON console_session (actor, created_at);
CREATE INDEX console_session_expiry ON console_session (expires_at);
