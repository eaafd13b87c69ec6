-- What the database knows of gateways, for more than one of them: the gateways, the tunnels' endpoints at each, and the
-- agents' links to each.
CREATE TABLE gateway (
    id TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL
);
-- The one gateway that the rows below are of. It made the first Frontdoor at its first start, and gets its own id at its
-- next.
INSERT INTO gateway (id, created_at)
    SELECT 'gwy-00000000000000000000000000000000', MIN(created_at) FROM frontdoor HAVING COUNT(*) > 0;

-- A tunnel's connection at a gateway, as that reports it: as JSON, and what lists are filtered and sorted by.
-- `changes` counts the changes that there were.
CREATE TABLE tunnel_endpoint (
    tunnel TEXT NOT NULL REFERENCES ipsec_tunnel (id) ON DELETE CASCADE,
    gateway TEXT NOT NULL REFERENCES gateway (id) ON UPDATE CASCADE,
    connection TEXT NOT NULL,
    state TEXT NOT NULL,
    since BIGINT NOT NULL,
    ike TEXT,
    esp TEXT,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    error TEXT,
    error_message TEXT,
    error_since BIGINT,
    peer_address TEXT,
    peer_port BIGINT,
    peer_id TEXT,
    nat_gateway BIGINT,
    nat_peer BIGINT,
    ike_established BIGINT,
    ike_rekey BIGINT,
    child_established BIGINT,
    child_rekey BIGINT,
    changes BIGINT NOT NULL,
    PRIMARY KEY (tunnel, gateway)
);
INSERT INTO tunnel_endpoint (tunnel, gateway, connection, state, since, ike, esp, bytes_in, bytes_out, error,
    error_message, error_since, peer_address, peer_port, peer_id, nat_gateway, nat_peer, ike_established, ike_rekey,
    child_established, child_rekey, changes)
    SELECT t.id, g.id, t.connection, COALESCE(t.connection_state, 'DOWN'), COALESCE(t.connection_since, t.created_at),
    t.connection_ike, t.connection_esp, COALESCE(t.connection_bytes_in, 0), COALESCE(t.connection_bytes_out, 0), t.connection_error, t.connection_error_message,
    t.connection_error_since, t.connection_peer_address, t.connection_peer_port, t.connection_peer_id,
    t.connection_nat_gateway, t.connection_nat_peer, t.connection_ike_established, t.connection_ike_rekey,
    t.connection_child_established, t.connection_child_rekey, t.connection_changes
    FROM ipsec_tunnel t CROSS JOIN gateway g WHERE t.connection IS NOT NULL;

ALTER TABLE ipsec_tunnel DROP COLUMN connection;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_state;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_since;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_ike;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_esp;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_bytes_in;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_bytes_out;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_error;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_error_message;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_error_since;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_peer_address;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_peer_port;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_peer_id;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_nat_gateway;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_nat_peer;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_ike_established;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_ike_rekey;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_child_established;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_child_rekey;
ALTER TABLE ipsec_tunnel DROP COLUMN connection_changes;

-- Changes are an endpoint's: each has a history of its own.
ALTER TABLE connection_change RENAME TO change_of_tunnel;
CREATE TABLE connection_change (
    tunnel TEXT NOT NULL,
    gateway TEXT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    state TEXT NOT NULL,
    peer_address TEXT,
    peer_port BIGINT,
    peer_id TEXT,
    ike TEXT,
    esp TEXT,
    error TEXT,
    error_message TEXT,
    PRIMARY KEY (tunnel, gateway, number),
    FOREIGN KEY (tunnel, gateway) REFERENCES tunnel_endpoint (tunnel, gateway) ON UPDATE CASCADE ON DELETE CASCADE
);
INSERT INTO connection_change (tunnel, gateway, number, at, state, peer_address, peer_port, peer_id, ike, esp, error,
    error_message)
    SELECT c.tunnel, p.gateway, c.number, c.at, c.state, c.peer_address, c.peer_port, c.peer_id, c.ike, c.esp, c.error,
    c.error_message FROM change_of_tunnel c JOIN tunnel_endpoint p ON p.tunnel = c.tunnel;
DROP TABLE change_of_tunnel;

-- An agent's control connection to a gateway: `connected_since` while it is up, `last_seen` once it is not. A barred agent
-- has none that is up.
CREATE TABLE agent_link (
    agent TEXT NOT NULL REFERENCES agent (id),
    gateway TEXT NOT NULL REFERENCES gateway (id) ON UPDATE CASCADE,
    version TEXT,
    address TEXT,
    connected_since BIGINT,
    last_seen BIGINT,
    PRIMARY KEY (agent, gateway)
);
INSERT INTO agent_link (agent, gateway, version, address, connected_since, last_seen)
    SELECT a.id, g.id, a.version, a.address, a.connected_since, a.last_seen FROM agent a CROSS JOIN gateway g
    WHERE COALESCE(a.version, a.address) IS NOT NULL OR COALESCE(a.connected_since, a.last_seen) IS NOT NULL;
ALTER TABLE agent DROP COLUMN version;
ALTER TABLE agent DROP COLUMN address;
ALTER TABLE agent DROP COLUMN connected_since;
ALTER TABLE agent DROP COLUMN last_seen;
