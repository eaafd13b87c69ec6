-- Finds the key that an agent has enrolled with.
CREATE INDEX enrollment_agent ON enrollment (agent);
