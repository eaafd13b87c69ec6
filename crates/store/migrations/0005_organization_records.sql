-- The record of what is an organization's: its API accounts, which may reach no Frontdoor or several (`frontdoor` is then
-- empty), and its Frontdoors, whose own record nobody can read once they are deleted.
ALTER TABLE execution ADD COLUMN organization TEXT;
UPDATE execution SET organization = (SELECT f.organization FROM frontdoor f WHERE f.id = execution.frontdoor)
    WHERE resource_type IN ('frontdoor', 'api-account');
CREATE INDEX execution_organization ON execution (organization, id) WHERE organization IS NOT NULL;
