-- What the quota of API accounts counts: revoked ones stay, and take no room.
CREATE INDEX api_account_live ON api_account (organization) WHERE revoked_at IS NULL;
