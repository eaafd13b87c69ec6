-- The servers that use the database. A server counts its `beat` while it lives; no times of two hosts are compared.
CREATE TABLE server (
    id TEXT NOT NULL PRIMARY KEY,
    link_address TEXT,
    version TEXT NOT NULL,
    beat BIGINT NOT NULL,
    started_at BIGINT NOT NULL
);
-- The server that holds a gateway's link, and the one that carries out a request. Rows of before are of none that lives.
ALTER TABLE gateway_link ADD COLUMN server TEXT;
ALTER TABLE idempotency ADD COLUMN server TEXT;
ALTER TABLE gateway ADD COLUMN agent_url TEXT;
ALTER TABLE gateway ADD COLUMN version TEXT;
