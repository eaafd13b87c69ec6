-- Where the request of a write came from, and its id. NULL: the server wrote it by itself, or it is not known.
ALTER TABLE execution ADD COLUMN source_address TEXT;
ALTER TABLE execution ADD COLUMN request_id TEXT;
CREATE INDEX execution_source ON execution (frontdoor, source_address, id) WHERE source_address IS NOT NULL;
CREATE INDEX execution_request ON execution (frontdoor, request_id, id) WHERE request_id IS NOT NULL;

-- A tunnel whose peer's address has become that of another Frontdoor's tunnel: it is not served, and its address is taken no more.
ALTER TABLE ipsec_tunnel ADD COLUMN peer_address_taken_at BIGINT;
DROP INDEX ipsec_tunnel_peer_address;
CREATE UNIQUE INDEX ipsec_tunnel_peer_address ON ipsec_tunnel (location, peer_address)
    WHERE status <> 'DELETED' AND peer_address_taken_at IS NULL;
CREATE INDEX ipsec_tunnel_lost ON ipsec_tunnel (peer_address_taken_at, id) WHERE peer_address_taken_at IS NOT NULL;

-- How a Frontdoor has a peer's address, or had it until `released_at`: since when, and when a connection from it was last up.
CREATE TABLE peer_address_hold (
    location TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    frontdoor TEXT NOT NULL,
    since BIGINT NOT NULL,
    proved_at BIGINT,
    released_at BIGINT,
    PRIMARY KEY (location, peer_address, frontdoor)
);
CREATE INDEX peer_address_hold_released ON peer_address_hold (released_at) WHERE released_at IS NOT NULL;
INSERT INTO peer_address_hold (location, peer_address, frontdoor, since, proved_at)
    SELECT t.location, t.peer_address, t.frontdoor, t.created_at,
        (SELECT MAX(c.at) FROM connection_change c
            WHERE c.tunnel = t.id AND c.state = 'UP' AND c.peer_address = t.peer_address)
    FROM ipsec_tunnel t WHERE t.status <> 'DELETED';
