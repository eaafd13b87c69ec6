-- The generation from which on no SA of before is kept; NULL: none was cut.
ALTER TABLE ipsec_tunnel ADD COLUMN cut_generation BIGINT;
