-- One set for SQLite and PostgreSQL: TEXT and BIGINT only. Times are Unix microseconds, of traffic buckets Unix
-- milliseconds. Ids are text whose order is the order of creation.

-- Bumped first in every write: on PostgreSQL its row lock makes writers follow one another, so that the order of
-- revisions is the order of commits and a reader that has seen revision n has missed nothing before it.
CREATE TABLE revision (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO revision (id, value) VALUES (1, 0);

CREATE TABLE frontdoor (
    id TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL,
    default_namespace TEXT NOT NULL,
    ipsec_shares_enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    created_by TEXT NOT NULL
);
CREATE INDEX frontdoor_organization ON frontdoor (organization, id);

CREATE TABLE environment (
    id TEXT NOT NULL PRIMARY KEY,
    frontdoor TEXT NOT NULL REFERENCES frontdoor (id),
    z_id TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX environment_z_id ON environment (z_id);
CREATE INDEX environment_frontdoor ON environment (frontdoor, id);

CREATE TABLE agent (
    id TEXT NOT NULL PRIMARY KEY,
    frontdoor TEXT NOT NULL REFERENCES frontdoor (id),
    environment TEXT NOT NULL REFERENCES environment (id),
    name TEXT NOT NULL,
    version TEXT,
    address TEXT,
    connected_since BIGINT,
    created_at BIGINT NOT NULL,
    barred_at BIGINT,
    revision BIGINT NOT NULL
);
CREATE INDEX agent_environment ON agent (environment, id);
CREATE INDEX agent_frontdoor ON agent (frontdoor, id);
CREATE INDEX agent_revision ON agent (revision);

CREATE TABLE enrollment (
    id TEXT NOT NULL PRIMARY KEY,
    frontdoor TEXT NOT NULL REFERENCES frontdoor (id),
    environment TEXT REFERENCES environment (id),
    secret_sha256 TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    agent TEXT REFERENCES agent (id),
    public_key_sha256 TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

CREATE TABLE ipsec_tunnel (
    id TEXT NOT NULL PRIMARY KEY,
    frontdoor TEXT NOT NULL REFERENCES frontdoor (id),
    name TEXT NOT NULL,
    location TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    peer_cidr TEXT NOT NULL,
    peer_id TEXT NOT NULL,
    load_balancer_ip TEXT NOT NULL,
    slot BIGINT NOT NULL,
    pre_shared_key TEXT NOT NULL,
    previous_key TEXT,
    previous_key_until BIGINT,
    tags TEXT NOT NULL,
    connection TEXT,
    connection_state TEXT,
    connection_since BIGINT,
    generation BIGINT NOT NULL,
    status TEXT NOT NULL,
    status_since BIGINT NOT NULL,
    observed_generation BIGINT,
    reason TEXT,
    message TEXT,
    detail_since BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    created_by TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE UNIQUE INDEX ipsec_tunnel_name ON ipsec_tunnel (frontdoor, name) WHERE status <> 'DELETED';
CREATE UNIQUE INDEX ipsec_tunnel_peer_address ON ipsec_tunnel (location, peer_address) WHERE status <> 'DELETED';
CREATE UNIQUE INDEX ipsec_tunnel_slot ON ipsec_tunnel (location, slot) WHERE status <> 'DELETED';
CREATE INDEX ipsec_tunnel_frontdoor ON ipsec_tunnel (frontdoor, id);
CREATE INDEX ipsec_tunnel_location ON ipsec_tunnel (location, id);
CREATE INDEX ipsec_tunnel_revision ON ipsec_tunnel (revision);

CREATE TABLE ipsec_share (
    id TEXT NOT NULL PRIMARY KEY,
    frontdoor TEXT NOT NULL REFERENCES frontdoor (id),
    tunnel TEXT NOT NULL REFERENCES ipsec_tunnel (id),
    environment TEXT NOT NULL REFERENCES environment (id),
    name TEXT NOT NULL,
    target TEXT NOT NULL,
    ingress_port BIGINT NOT NULL,
    allowed_sources TEXT,
    max_connections BIGINT,
    idle_timeout_seconds BIGINT,
    proxy_protocol TEXT,
    tags TEXT NOT NULL,
    generation BIGINT NOT NULL,
    status TEXT NOT NULL,
    status_since BIGINT NOT NULL,
    observed_generation BIGINT,
    reason TEXT,
    message TEXT,
    detail_since BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    created_by TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE UNIQUE INDEX ipsec_share_name ON ipsec_share (frontdoor, name) WHERE status <> 'DELETED';
CREATE UNIQUE INDEX ipsec_share_ingress_port ON ipsec_share (tunnel, ingress_port) WHERE status <> 'DELETED';
CREATE INDEX ipsec_share_frontdoor ON ipsec_share (frontdoor, id);
CREATE INDEX ipsec_share_live ON ipsec_share (frontdoor, id) WHERE status <> 'DELETED';
CREATE INDEX ipsec_share_status ON ipsec_share (frontdoor, status, id);
CREATE INDEX ipsec_share_created ON ipsec_share (frontdoor, created_at, id);
CREATE INDEX ipsec_share_deleted ON ipsec_share (frontdoor, deleted_at, id) WHERE status = 'DELETED';
CREATE INDEX ipsec_share_environment ON ipsec_share (environment, id);
-- Pages of one environment's shares are counted and found in it alone, in the order of names.
CREATE INDEX ipsec_share_page ON ipsec_share (frontdoor, environment, status, name, id);
CREATE INDEX ipsec_share_revision ON ipsec_share (revision);

-- A program's credentials. `scopes` and `frontdoors` are separated by spaces; NULL names all of the organization.
CREATE TABLE api_account (
    id TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    frontdoors TEXT,
    secret_sha256 TEXT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    revoked_at BIGINT
);
CREATE UNIQUE INDEX api_account_secret ON api_account (secret_sha256);
CREATE INDEX api_account_organization ON api_account (organization, id);

CREATE TABLE execution (
    id TEXT NOT NULL PRIMARY KEY,
    process TEXT NOT NULL,
    frontdoor TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource TEXT NOT NULL,
    generation BIGINT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    created_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX execution_frontdoor ON execution (frontdoor, id);
CREATE INDEX execution_process ON execution (process, id);
CREATE INDEX execution_resource ON execution (frontdoor, resource, id);
CREATE INDEX execution_created ON execution (frontdoor, created_at, id);
CREATE INDEX execution_status ON execution (frontdoor, status, id);
CREATE INDEX execution_age ON execution (finished_at);
CREATE INDEX execution_running ON execution (resource) WHERE status = 'RUNNING';

-- Changes of status, numbered in the order of their commits. The sequence's row is locked last in a transaction.
CREATE TABLE event (
    id BIGINT NOT NULL PRIMARY KEY,
    frontdoor TEXT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    resource TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    message TEXT
);
CREATE INDEX event_frontdoor ON event (frontdoor, id);
CREATE INDEX event_at ON event (at);
CREATE TABLE event_sequence (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    newest BIGINT NOT NULL,
    forgotten BIGINT NOT NULL
);
INSERT INTO event_sequence (id, newest, forgotten) VALUES (1, 0, 0);

-- Keys of requests, and their answers. `process` is set by the write's own transaction.
CREATE TABLE idempotency (
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    token TEXT NOT NULL,
    claimed_at BIGINT NOT NULL,
    process TEXT,
    status BIGINT,
    headers TEXT,
    body TEXT,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_age ON idempotency (claimed_at);

-- What a share or a tunnel carried in the bucket of `resolution` seconds that starts at `bucket`.
CREATE TABLE traffic (
    scope TEXT NOT NULL,
    resolution BIGINT NOT NULL,
    bucket BIGINT NOT NULL,
    rx BIGINT NOT NULL,
    tx BIGINT NOT NULL,
    connections BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    active BIGINT NOT NULL,
    PRIMARY KEY (scope, resolution, bucket)
);
CREATE INDEX traffic_age ON traffic (resolution, bucket);
