-- What every server knows of a gateway. `in_process`: it runs in a server's process, and takes the id of the data directory. Its
-- columns without a value are those that it has not told yet.
ALTER TABLE gateway ADD COLUMN location TEXT;
ALTER TABLE gateway ADD COLUMN in_process BIGINT NOT NULL DEFAULT 1;
ALTER TABLE gateway ADD COLUMN public_address TEXT;
ALTER TABLE gateway ADD COLUMN esp TEXT;
ALTER TABLE gateway ADD COLUMN namespaces TEXT;
ALTER TABLE gateway ADD COLUMN max_tunnels BIGINT;
ALTER TABLE gateway ADD COLUMN draining BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX gateway_in_process ON gateway (in_process) WHERE in_process = 1;

-- Who holds a gateway's link: each holder has a later epoch than the one before, and what is written about the gateway names it.
-- A table of its own, so that a share lock on it does not wait for changes of the gateway.
CREATE TABLE gateway_link (
    gateway TEXT NOT NULL PRIMARY KEY REFERENCES gateway (id) ON UPDATE CASCADE,
    epoch BIGINT NOT NULL,
    linked_at BIGINT,
    lost_at BIGINT
);
INSERT INTO gateway_link (gateway, epoch) SELECT id, 0 FROM gateway;

-- Where a tunnel is to be served; a tunnel's first place has the ordinal 1. What a gateway reports of it is in `tunnel_endpoint`.
-- A place that is withdrawn stays, so that its gateway is told.
CREATE TABLE endpoint_place (
    tunnel TEXT NOT NULL REFERENCES ipsec_tunnel (id) ON DELETE CASCADE,
    gateway TEXT NOT NULL REFERENCES gateway (id) ON UPDATE CASCADE,
    ordinal BIGINT NOT NULL,
    placed_at BIGINT NOT NULL,
    withdrawn_at BIGINT,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tunnel, gateway)
);
CREATE INDEX endpoint_place_gateway ON endpoint_place (gateway, revision);
CREATE UNIQUE INDEX endpoint_place_ordinal ON endpoint_place (tunnel, ordinal) WHERE withdrawn_at IS NULL;
-- There was one gateway, which served all tunnels.
INSERT INTO endpoint_place (tunnel, gateway, ordinal, placed_at, revision)
    SELECT t.id, g.id, 1, t.created_at, t.revision FROM ipsec_tunnel t CROSS JOIN gateway g WHERE t.status <> 'DELETED';
