-- Limits of a Frontdoor that differ from the installation's, as JSON: {"shares":5000}.
ALTER TABLE frontdoor ADD COLUMN quotas TEXT NOT NULL DEFAULT '{}';

-- What quotas count, without a look at rows that take no room.
CREATE INDEX enrollment_unused ON enrollment (frontdoor, expires_at) WHERE agent IS NULL;
CREATE INDEX agent_live ON agent (frontdoor) WHERE barred_at IS NULL;
CREATE INDEX environment_live ON environment (frontdoor) WHERE deleted_at IS NULL;
CREATE INDEX handover_link_live ON handover_link (frontdoor, expires_at) WHERE revoked_at IS NULL;
