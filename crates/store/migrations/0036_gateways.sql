-- What every server knows of a gateway. `in_process`: it runs in a server's process, and takes the id of the data directory. Its
-- columns without a value are those that it has not told yet.
ALTER TABLE gateway ADD COLUMN location TEXT;
ALTER TABLE gateway ADD COLUMN in_process BIGINT NOT NULL DEFAULT 1;
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
