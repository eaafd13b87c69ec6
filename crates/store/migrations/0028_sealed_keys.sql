-- Tunnels' keys are sealed under a key that is not in the database. A deleted tunnel has none: it is erased with the
-- deletion. What was in clear waits here for the program, which seals it at its start and leaves the table empty.
CREATE TABLE clear_tunnel_key (
    tunnel TEXT NOT NULL PRIMARY KEY,
    pre_shared_key TEXT NOT NULL,
    previous_keys TEXT NOT NULL
);
INSERT INTO clear_tunnel_key (tunnel, pre_shared_key, previous_keys)
    SELECT id, pre_shared_key, previous_keys FROM ipsec_tunnel WHERE status NOT IN ('DELETING', 'DELETED');

-- Whether the database's files may still contain what was in clear.
CREATE TABLE clear_remains (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    are_left BIGINT NOT NULL
);
INSERT INTO clear_remains (id, are_left)
    SELECT 1, CASE WHEN EXISTS (SELECT 1 FROM ipsec_tunnel) OR EXISTS (SELECT 1 FROM idempotency) THEN 1 ELSE 0 END;

ALTER TABLE ipsec_tunnel DROP COLUMN pre_shared_key;
ALTER TABLE ipsec_tunnel DROP COLUMN previous_keys;
ALTER TABLE ipsec_tunnel ADD COLUMN pre_shared_key TEXT;
ALTER TABLE ipsec_tunnel ADD COLUMN previous_keys TEXT;
-- When the first of the previous keys becomes invalid, and is erased.
ALTER TABLE ipsec_tunnel ADD COLUMN previous_keys_until BIGINT;
CREATE INDEX ipsec_tunnel_previous_keys ON ipsec_tunnel (previous_keys_until) WHERE previous_keys_until IS NOT NULL;
