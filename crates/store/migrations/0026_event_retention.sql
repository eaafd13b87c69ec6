-- The newest event of a Frontdoor that was deleted because the Frontdoor has too many. Those that are too old are deleted for all
-- Frontdoors at once.
CREATE TABLE event_forgotten (
    frontdoor TEXT NOT NULL PRIMARY KEY,
    newest BIGINT NOT NULL
);
