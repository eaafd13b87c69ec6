-- Where the request of a write came from, and its id. NULL: the server wrote it by itself, or it is not known.
ALTER TABLE execution ADD COLUMN source_address TEXT;
ALTER TABLE execution ADD COLUMN request_id TEXT;
CREATE INDEX execution_source ON execution (frontdoor, source_address, id) WHERE source_address IS NOT NULL;
CREATE INDEX execution_request ON execution (frontdoor, request_id, id) WHERE request_id IS NOT NULL;
