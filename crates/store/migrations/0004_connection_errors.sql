-- Why a peer could not connect: connection_error has a reason of a closed set now, and here are the words. What was
-- recorded before names it otherwise, and is forgotten: gateways report it again.
ALTER TABLE ipsec_tunnel ADD COLUMN connection_error_message TEXT;
ALTER TABLE ipsec_tunnel ADD COLUMN connection_error_since BIGINT;
UPDATE ipsec_tunnel SET connection = NULL, connection_state = NULL, connection_since = NULL, connection_ike = NULL,
    connection_esp = NULL, connection_bytes_in = NULL, connection_bytes_out = NULL, connection_error = NULL
    WHERE connection LIKE '%"lastError"%';
