-- What all servers of the database need: `ca`, with its certificate, and `token-key`. Each is sealed for its row.
CREATE TABLE shared_secret (
    name TEXT NOT NULL PRIMARY KEY,
    sealed TEXT NOT NULL,
    certificate TEXT,
    created_at BIGINT NOT NULL
);
