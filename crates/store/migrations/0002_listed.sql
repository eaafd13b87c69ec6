-- When an agent that is not connected was last known to be.
ALTER TABLE agent ADD COLUMN last_seen BIGINT;

-- What lists are filtered and sorted by of a tunnel's connection, which is JSON.
ALTER TABLE ipsec_tunnel ADD COLUMN connection_ike TEXT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_esp TEXT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_bytes_in BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_bytes_out BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_error TEXT;
