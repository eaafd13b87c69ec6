-- Links for the engineers of remote sites, and the sessions that they open. Both have only the SHA-256 of their token.
CREATE TABLE handover_link (
    id TEXT NOT NULL PRIMARY KEY,
    frontdoor TEXT NOT NULL REFERENCES frontdoor (id),
    tunnel TEXT NOT NULL REFERENCES ipsec_tunnel (id) ON DELETE CASCADE,
    description TEXT,
    expires_at BIGINT NOT NULL,
    max_uses BIGINT NOT NULL,
    -- The parameters of PBKDF2, and its result; NULL: the token is enough.
    passphrase TEXT,
    token_sha256 TEXT NOT NULL UNIQUE,
    uses BIGINT NOT NULL,
    last_used_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    revoked_at BIGINT
);

CREATE INDEX handover_link_tunnel ON handover_link (tunnel);

CREATE TABLE site_session (
    token_sha256 TEXT NOT NULL PRIMARY KEY,
    link TEXT NOT NULL REFERENCES handover_link (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
);

CREATE INDEX site_session_link ON site_session (link);
