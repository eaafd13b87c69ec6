-- Which gateways the agents of an environment dial, in JSON, and the revision at which that last changed. The eldest server makes the
-- rows from those of shares, places and links: agents know the environments that have none by the address that they were given.
CREATE TABLE environment_gateways (
    environment TEXT NOT NULL PRIMARY KEY REFERENCES environment (id) ON DELETE CASCADE,
    gateways TEXT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX environment_gateways_version ON environment_gateways (version);
