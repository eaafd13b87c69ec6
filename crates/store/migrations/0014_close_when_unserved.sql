-- Whether the port of a share is closed while no agent can serve it: 1, or 0 if it stays open.
ALTER TABLE ipsec_share ADD COLUMN close_when_unserved BIGINT NOT NULL DEFAULT 0;
