-- What lists are filtered and sorted by of the peer, a NAT and the SAs' times.
ALTER TABLE ipsec_tunnel ADD COLUMN connection_peer_address TEXT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_peer_port BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_peer_id TEXT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_nat_gateway BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_nat_peer BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_ike_established BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_ike_rekey BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_child_established BIGINT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_child_rekey BIGINT;
