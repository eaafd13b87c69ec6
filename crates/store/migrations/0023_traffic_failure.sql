-- The failures of a bucket of `traffic`, by their reasons. Buckets of earlier versions have none.
CREATE TABLE traffic_failure (
    scope TEXT NOT NULL,
    resolution BIGINT NOT NULL,
    bucket BIGINT NOT NULL,
    reason TEXT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (scope, resolution, bucket, reason)
);

CREATE INDEX traffic_failure_age ON traffic_failure (resolution, bucket);
