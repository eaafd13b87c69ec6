-- The last report of a gateway whose traffic was added, and how many of its parts were: one that is recorded again, after a COMMIT
-- whose answer was lost, adds nothing.
CREATE TABLE traffic_report (
    gateway TEXT NOT NULL PRIMARY KEY REFERENCES gateway (id) ON UPDATE CASCADE,
    report TEXT NOT NULL,
    parts BIGINT NOT NULL
);

-- Whether a deleted tunnel still has shares, deleted ones included.
CREATE INDEX ipsec_share_tunnel ON ipsec_share (tunnel);
