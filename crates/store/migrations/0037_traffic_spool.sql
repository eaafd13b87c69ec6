-- A gateway numbers its reports of traffic, and may send one more than once: the last one that was added, of which spool of the
-- gateway, and how many of its parts were. Another server can complete it. A report of before is of a spool that no gateway has.
ALTER TABLE traffic_report RENAME COLUMN report TO spool;
ALTER TABLE traffic_report ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
