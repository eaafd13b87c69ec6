-- Tags as rows, by which lists are filtered: to search the JSON of all rows takes seconds. Kept by every transaction that changes
-- the tags of a row. JSON_ROWS stands for the database's own function; see `migrator` in database.rs.
CREATE TABLE ipsec_share_tag (
    id TEXT NOT NULL REFERENCES ipsec_share (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    frontdoor TEXT NOT NULL,
    PRIMARY KEY (id, name)
);
CREATE INDEX ipsec_share_tag_value ON ipsec_share_tag (frontdoor, name, value, id);
INSERT INTO ipsec_share_tag (id, name, value, frontdoor)
    SELECT r.id, tag.key, tag.value, r.frontdoor FROM ipsec_share r, JSON_ROWS(r.tags) tag;

CREATE TABLE ipsec_tunnel_tag (
    id TEXT NOT NULL REFERENCES ipsec_tunnel (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    frontdoor TEXT NOT NULL,
    PRIMARY KEY (id, name)
);
CREATE INDEX ipsec_tunnel_tag_value ON ipsec_tunnel_tag (frontdoor, name, value, id);
INSERT INTO ipsec_tunnel_tag (id, name, value, frontdoor)
    SELECT r.id, tag.key, tag.value, r.frontdoor FROM ipsec_tunnel r, JSON_ROWS(r.tags) tag;

-- The shares of a tunnel, and those that were changed last.
CREATE INDEX ipsec_share_of_tunnel ON ipsec_share (frontdoor, tunnel, id) WHERE status <> 'DELETED';
CREATE INDEX ipsec_share_updated ON ipsec_share (frontdoor, updated_at DESC, id) WHERE status <> 'DELETED';
