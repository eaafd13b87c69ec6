-- What every server knows of a gateway. `in_process`: it runs in a server's process, and takes the id of the data directory. Its
-- columns without a value are those that it has not told yet.
ALTER TABLE gateway ADD COLUMN location TEXT;
ALTER TABLE gateway ADD COLUMN in_process BIGINT NOT NULL DEFAULT 1;
CREATE UNIQUE INDEX gateway_in_process ON gateway (in_process) WHERE in_process = 1;
