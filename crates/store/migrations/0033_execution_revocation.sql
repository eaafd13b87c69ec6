-- What is read for the record of revocations, again and again.
CREATE INDEX execution_revocation ON execution (id) WHERE action IN ('DELETE', 'ROTATE_KEY');
