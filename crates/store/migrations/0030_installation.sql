-- What the database itself is: the fingerprint of the authority that its agents have their certificates from, once a server has
-- used one; and how often it was restored (`Era` in the model).
CREATE TABLE installation (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    authority TEXT,
    era BIGINT NOT NULL
);
INSERT INTO installation (id, authority, era) VALUES (1, NULL, 0);

-- An agent's key is the agent's own: one that is adopted has used no code that the database knows.
ALTER TABLE agent ADD COLUMN public_key_sha256 TEXT;
UPDATE agent SET public_key_sha256 = (SELECT e.public_key_sha256 FROM enrollment e WHERE e.agent = agent.id);
DROP INDEX enrollment_agent;
