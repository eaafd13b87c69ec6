-- The last changes of each tunnel's connection. `number` counts them from 1; the tunnel knows how many there were.
CREATE TABLE connection_change (
    tunnel TEXT NOT NULL REFERENCES ipsec_tunnel (id) ON DELETE CASCADE,
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
    PRIMARY KEY (tunnel, number)
);
ALTER TABLE ipsec_tunnel ADD COLUMN connection_changes BIGINT NOT NULL DEFAULT 0;
