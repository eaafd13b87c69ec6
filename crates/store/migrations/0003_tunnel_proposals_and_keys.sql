-- What a tunnel's two ends may agree on, as JSON; NULL is what the gateway offers by itself.
ALTER TABLE ipsec_tunnel ADD COLUMN ike_proposals TEXT;
ALTER TABLE ipsec_tunnel ADD COLUMN esp_proposals TEXT;

-- Keys that still work beside the present one, the newest first: a line each, with the time until when and the key.
ALTER TABLE ipsec_tunnel ADD COLUMN previous_keys TEXT NOT NULL DEFAULT '';
UPDATE ipsec_tunnel SET previous_keys = CAST(previous_key_until AS TEXT) || ' ' || previous_key
    WHERE previous_key IS NOT NULL AND previous_key_until IS NOT NULL;
ALTER TABLE ipsec_tunnel DROP COLUMN previous_key;
ALTER TABLE ipsec_tunnel DROP COLUMN previous_key_until;
