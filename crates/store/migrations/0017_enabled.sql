-- Whether a tunnel or a share is served: 1, or 0 if it is disabled on request.
ALTER TABLE ipsec_tunnel ADD COLUMN enabled BIGINT NOT NULL DEFAULT 1;
ALTER TABLE ipsec_share ADD COLUMN enabled BIGINT NOT NULL DEFAULT 1;
