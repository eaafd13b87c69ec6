-- Who deleted the row, as `created_by`. NULL: it is not deleted, or was by an earlier version.
ALTER TABLE ipsec_tunnel ADD COLUMN deleted_by TEXT;
ALTER TABLE ipsec_share ADD COLUMN deleted_by TEXT;
