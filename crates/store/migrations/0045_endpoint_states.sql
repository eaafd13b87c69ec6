-- A tunnel that is to be served by two gateways of its location.
ALTER TABLE ipsec_tunnel ADD COLUMN redundant BIGINT NOT NULL DEFAULT 0;
CREATE INDEX ipsec_tunnel_redundant ON ipsec_tunnel (id) WHERE redundant = 1;

-- Places beside the first one: tunnels that have always had one gateway are not in it.
CREATE INDEX endpoint_place_further ON endpoint_place (tunnel) WHERE ordinal > 1;

-- What each gateway reports of a tunnel that has several places, and of its shares. Rows of tunnels with one place have none.
-- `seen` says which of the other columns have a value.
CREATE TABLE endpoint_state (
    resource TEXT NOT NULL,
    gateway TEXT NOT NULL REFERENCES gateway (id) ON UPDATE CASCADE,
    tunnel TEXT NOT NULL REFERENCES ipsec_tunnel (id) ON DELETE CASCADE,
    of_generation BIGINT NOT NULL,
    seen TEXT NOT NULL,
    ready BIGINT,
    problem TEXT,
    words TEXT,
    since BIGINT,
    PRIMARY KEY (resource, gateway)
);
CREATE INDEX endpoint_state_tunnel ON endpoint_state (tunnel);
