-- When a share is closed, in microseconds; NULL: never.
ALTER TABLE ipsec_share ADD COLUMN expires_at BIGINT;
