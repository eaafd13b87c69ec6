-- How many shares of each status an environment has: to count a hundred thousand rows takes many times as long as to
-- read a page of them. Kept by every transaction that changes a share's status or environment.
CREATE TABLE ipsec_share_count (
    frontdoor TEXT NOT NULL,
    environment TEXT NOT NULL,
    status TEXT NOT NULL,
    shares BIGINT NOT NULL,
    PRIMARY KEY (frontdoor, environment, status)
);
INSERT INTO ipsec_share_count (frontdoor, environment, status, shares)
    SELECT frontdoor, environment, status, COUNT(*) FROM ipsec_share GROUP BY frontdoor, environment, status;
