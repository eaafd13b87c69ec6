-- Tunnels whose removal the gateway holds back, and whether its operator has confirmed that. Both end with the link.
ALTER TABLE gateway_link ADD COLUMN held_removals BIGINT NOT NULL DEFAULT 0;
ALTER TABLE gateway_link ADD COLUMN removal_confirmed BIGINT NOT NULL DEFAULT 0;
