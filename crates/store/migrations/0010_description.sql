-- What the owner of a tunnel or a share notes about it.
ALTER TABLE ipsec_tunnel ADD COLUMN description TEXT;
ALTER TABLE ipsec_share ADD COLUMN description TEXT;
