-- Keeps its number for the migration of traffic reports, which takes the place of this file.
SELECT 1;
