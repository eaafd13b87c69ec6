-- Rows as the version with migrations 0001 to 0009 writes them, one or more of every table.
UPDATE revision SET value = 7 WHERE id = 1;

INSERT INTO frontdoor (id, organization, default_namespace, ipsec_shares_enabled, created_at, updated_at, deleted_at,
    created_by) VALUES
    ('01900000-0000-7000-8000-000000000001', 'acme', 'default', 1, 1790000000000000, 1790000000000000, NULL, 'admin'),
    ('01900000-0000-7000-8000-000000000002', 'other', 'spare', 0, 1790000001000000, 1790000002000000, NULL, 'admin'),
    ('01900000-0000-7000-8000-000000000003', 'gone', 'default', 1, 1790000001000000, 1790000003000000,
     1790000003000000, 'admin');

INSERT INTO environment (id, frontdoor, z_id, name, created_at, updated_at, deleted_at) VALUES
    ('env-01900000000070008000000000000011', '01900000-0000-7000-8000-000000000001', 'ijcrWb-ZOq', 'dc-1',
     1790000010000000, 1790000011000000, NULL);

INSERT INTO agent (id, frontdoor, environment, name, version, address, connected_since, last_seen, created_at,
    barred_at, revision) VALUES
    ('agt-01900000000070008000000000000021', '01900000-0000-7000-8000-000000000001',
     'env-01900000000070008000000000000011', 'dc-1.example.org', '0.1.0', '10.0.0.1', 1790000020000000, NULL,
     1790000010000000, NULL, 3),
    ('agt-01900000000070008000000000000022', '01900000-0000-7000-8000-000000000001',
     'env-01900000000070008000000000000011', 'dc-2.example.org', '0.1.0', '10.0.0.2', NULL, 1790000021000000,
     1790000012000000, NULL, 3),
    ('agt-01900000000070008000000000000023', '01900000-0000-7000-8000-000000000001',
     'env-01900000000070008000000000000011', 'dc-3.example.org', NULL, NULL, NULL, NULL, 1790000012000000,
     1790000022000000, 4);

INSERT INTO enrollment (id, frontdoor, environment, secret_sha256, expires_at, tries, agent, public_key_sha256,
    created_at, created_by) VALUES
    ('enr-01900000000070008000000000000031', '01900000-0000-7000-8000-000000000001', NULL,
     '0101010101010101010101010101010101010101010101010101010101010101', 1790003600000000, 0,
     'agt-01900000000070008000000000000021', '0202020202020202020202020202020202020202020202020202020202020202',
     1790000009000000, 'admin'),
    ('enr-01900000000070008000000000000032', '01900000-0000-7000-8000-000000000001',
     'env-01900000000070008000000000000011', '0303030303030303030303030303030303030303030303030303030303030303',
     1790003600000000, 1, NULL, NULL, 1790000009000000, 'admin');

-- The first is connected, the second fails, the third was never heard of.
INSERT INTO ipsec_tunnel (id, frontdoor, name, location, peer_address, peer_cidr, peer_id, load_balancer_ip, slot,
    pre_shared_key, previous_keys, ike_proposals, esp_proposals, initiate, tags, generation, status, status_since,
    observed_generation, reason, message, detail_since, created_at, updated_at, deleted_at, created_by, revision,
    connection, connection_state, connection_since, connection_ike, connection_esp, connection_bytes_in,
    connection_bytes_out, connection_error, connection_error_message, connection_error_since, connection_peer_address,
    connection_peer_port, connection_peer_id, connection_nat_gateway, connection_nat_peer, connection_ike_established,
    connection_ike_rekey, connection_child_established, connection_child_rekey, connection_changes) VALUES
    ('tnl-01900000000070008000000000000041', '01900000-0000-7000-8000-000000000001', 'site-1', 'local', '203.0.113.1',
     '172.31.0.0/16', '203.0.113.1', '100.64.0.1', 0, 'the first key of sixty', '1790086400000000 the key before that one',
     '["aes256-sha256-modp2048"]', '["aes256gcm16-modp2048"]', 1, '{"team":"payments"}', 2, 'DEPLOYED', 1790000030000000, 2,
     NULL, NULL, NULL, 1790000025000000, 1790000029000000, NULL, 'admin', 5,
     '{"state":"UP","since":"2026-09-21T14:13:51Z","algorithms":{"ike":"AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048","esp":"AES_GCM_16-256"},"peer":{"address":"198.51.100.7","port":4500,"id":"203.0.113.1"},"nat":{"gateway":false,"peer":true},"ikeSa":{"establishedAt":"2026-09-21T14:13:51Z","rekeyAt":"2026-09-21T18:13:51Z"},"childSa":{"establishedAt":"2026-09-21T14:13:52Z"},"bytesIn":8331,"bytesOut":1321}',
     'UP', 1790000031000000, 'AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048', 'AES_GCM_16-256', 8331, 1321,
     NULL, NULL, NULL, '198.51.100.7', 4500, '203.0.113.1', 0, 1, 1790000031000000, 1790014431000000, 1790000032000000,
     NULL, 2),
    ('tnl-01900000000070008000000000000042', '01900000-0000-7000-8000-000000000001', 'site-2', 'local', '203.0.113.2',
     '172.31.0.0/16', 'site-2.example.org', '100.64.0.2', 1, 'the second key of sixty', '', NULL, NULL, 0, '{}', 1,
     'DEPLOYED', 1790000030000000, 1, NULL, NULL, NULL, 1790000025000000, 1790000025000000, NULL, 'admin', 5,
     '{"state":"DOWN","since":"2026-09-21T14:13:51Z","bytesIn":0,"bytesOut":0,"lastError":{"reason":"PreSharedKeysDiffer","message":"the keys differ: set the same key on both sides","since":"2026-09-21T14:13:55Z"}}',
     'DOWN', 1790000031000000, NULL, NULL, 0, 0, 'PreSharedKeysDiffer', 'the keys differ: set the same key on both sides',
     1790000035000000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1),
    ('tnl-01900000000070008000000000000043', '01900000-0000-7000-8000-000000000002', 'site-3', 'local', '203.0.113.3',
     '172.31.0.0/16', '203.0.113.3', '100.64.0.3', 2, 'the third key of sixty', '', NULL, NULL, 0, '{}', 1, 'ERROR',
     1790000060000000, NULL, 'GatewayOffline', 'no gateway is connected', 1790000060000000, 1790000028000000,
     1790000028000000, NULL, 'admin', 6,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0);

INSERT INTO connection_change (tunnel, number, at, state, peer_address, peer_port, peer_id, ike, esp, error,
    error_message) VALUES
    ('tnl-01900000000070008000000000000041', 1, 1790000030500000, 'CONNECTING', '198.51.100.7', 4500, NULL, NULL, NULL,
     'PeerDoesNotAnswer', 'nothing comes back: look at the firewall'),
    ('tnl-01900000000070008000000000000041', 2, 1790000031000000, 'UP', '198.51.100.7', 4500, '203.0.113.1',
     'AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048', 'AES_GCM_16-256', NULL, NULL),
    ('tnl-01900000000070008000000000000042', 1, 1790000035000000, 'DOWN', NULL, NULL, NULL, NULL, NULL,
     'PreSharedKeysDiffer', 'the keys differ: set the same key on both sides');

INSERT INTO ipsec_share (id, frontdoor, tunnel, environment, name, target, ingress_port, allowed_sources,
    max_connections, idle_timeout_seconds, proxy_protocol, tags, generation, status, status_since, observed_generation,
    reason, message, detail_since, created_at, updated_at, deleted_at, created_by, revision) VALUES
    ('shr-01900000000070008000000000000051', '01900000-0000-7000-8000-000000000001',
     'tnl-01900000000070008000000000000041', 'env-01900000000070008000000000000011', 'app-db', '10.20.100.1:8443', 8443,
     '["172.31.4.0/24"]', 100, 600, 'v2', '{"team":"payments"}', 3, 'DEPLOYED', 1790000041000000, 3, NULL, NULL, NULL,
     1790000040000000, 1790000040500000, NULL, 'admin', 7),
    ('shr-01900000000070008000000000000052', '01900000-0000-7000-8000-000000000001',
     'tnl-01900000000070008000000000000041', 'env-01900000000070008000000000000011', 'old-db', 'db.example.org:5432',
     5432, NULL, NULL, NULL, NULL, '{}', 2, 'DELETED', 1790000043000000, 2, NULL, NULL, NULL, 1790000040000000,
     1790000042000000, 1790000043000000, 'admin', 7);
INSERT INTO ipsec_share_count (frontdoor, environment, status, shares) VALUES
    ('01900000-0000-7000-8000-000000000001', 'env-01900000000070008000000000000011', 'DEPLOYED', 1),
    ('01900000-0000-7000-8000-000000000001', 'env-01900000000070008000000000000011', 'DELETED', 1);

INSERT INTO api_account (id, organization, name, scopes, frontdoors, secret_sha256, expires_at, created_at, created_by,
    revoked_at) VALUES
    ('acc-01900000000070008000000000000061', 'acme', 'a program', 'frontdoor.read frontdoor.write',
     '01900000-0000-7000-8000-000000000001', '0404040404040404040404040404040404040404040404040404040404040404',
     1890000000000000, 1790000005000000, 'admin', NULL),
    ('acc-01900000000070008000000000000062', 'acme', 'revoked', 'frontdoor.read', NULL,
     '0505050505050505050505050505050505050505050505050505050505050505', NULL, 1790000005000000, 'admin',
     1790000006000000);

INSERT INTO execution (id, process, frontdoor, organization, actor, action, resource_type, resource, generation, status,
    message, created_at, finished_at) VALUES
    ('exe-01900000000070008000000000000071', 'exe-01900000000070008000000000000070',
     '01900000-0000-7000-8000-000000000001', 'acme', 'admin', 'CREATE', 'frontdoor',
     '01900000-0000-7000-8000-000000000001', 0, 'SUCCESS', NULL, 1790000000000000, 1790000000000000),
    ('exe-01900000000070008000000000000072', 'exe-01900000000070008000000000000072', '', 'acme', 'admin', 'CREATE',
     'api-account', 'acc-01900000000070008000000000000061', 0, 'SUCCESS', NULL, 1790000005000000, 1790000005000000),
    ('exe-01900000000070008000000000000073', 'exe-01900000000070008000000000000073',
     '01900000-0000-7000-8000-000000000001', NULL, 'acc-01900000000070008000000000000061', 'UPDATE', 'ipsec-share',
     'shr-01900000000070008000000000000051', 3, 'FAILED', 'AgentOffline: no agent is connected', 1790000040500000,
     1790000040800000);

INSERT INTO event (id, frontdoor, at, kind, resource, status, reason, message) VALUES
    (4, '01900000-0000-7000-8000-000000000001', 1790000035000000, 'connection', 'tnl-01900000000070008000000000000042',
     'DOWN', 'PreSharedKeysDiffer', 'the keys differ: set the same key on both sides'),
    (5, '01900000-0000-7000-8000-000000000001', 1790000041000000, 'ipsec-share',
     'shr-01900000000070008000000000000051', 'DEPLOYED', NULL, NULL);
UPDATE event_sequence SET newest = 5, forgotten = 3 WHERE id = 1;

INSERT INTO idempotency (principal, key, fingerprint, token, claimed_at, process, status, headers, body) VALUES
    ('admin', 'answered', 'a', '01900000-0000-7000-8000-000000000081', 1790000040000000,
     'exe-01900000000070008000000000000073', 202, '[["location","/x"]]', '{}'),
    ('admin', 'lost', 'b', '01900000-0000-7000-8000-000000000082', 1790000040000000,
     'exe-01900000000070008000000000000073', NULL, NULL, NULL);

INSERT INTO traffic (scope, resolution, bucket, rx, tx, connections, failures, active) VALUES
    ('shr-01900000000070008000000000000051', 10, 1790000040000, 8331, 1321, 3, 1, 2),
    ('shr-01900000000070008000000000000051', 300, 1789999800000, 8331, 1321, 3, 1, 2),
    ('shr-01900000000070008000000000000051', 3600, 1789999200000, 8331, 1321, 3, 1, 2),
    ('tnl-01900000000070008000000000000041', 10, 1790000040000, 8331, 1321, 3, 1, 2);
