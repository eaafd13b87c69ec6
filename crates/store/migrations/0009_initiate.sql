-- Whether the gateway starts a tunnel's connection: 1, or 0 if it only answers.
ALTER TABLE ipsec_tunnel ADD COLUMN initiate BIGINT NOT NULL DEFAULT 0;
