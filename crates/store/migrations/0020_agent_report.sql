-- What each agent reported last of itself and its host, as JSON, and when.
CREATE TABLE agent_report (
    agent TEXT PRIMARY KEY REFERENCES agent (id),
    at BIGINT NOT NULL,
    report TEXT NOT NULL
);
