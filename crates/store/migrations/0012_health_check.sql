-- How agents probe the target of a share while nobody connects. NULL is the default.
ALTER TABLE ipsec_share ADD COLUMN health_check TEXT;
ALTER TABLE ipsec_share ADD COLUMN probe_interval BIGINT;
