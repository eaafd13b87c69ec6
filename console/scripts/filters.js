// Writes src/generated/filters.ts: what each list of the API can be filtered and sorted by, from the API's document.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';

const here = (path) => new URL(`../${path}`, import.meta.url);
const document = JSON.parse(readFileSync(here('../docs/openapi.json'), 'utf8'));

const lists = {
  tunnels: '/frontdoor/v2/{frontdoorId}/ipsec-tunnels',
  shares: '/frontdoor/v2/{frontdoorId}/ipsec-shares',
  environments: '/frontdoor/v2/{frontdoorId}/environments',
  agents: '/frontdoor/v2/{frontdoorId}/agents',
  executions: '/frontdoor/v2/{frontdoorId}/executions',
  organizationExecutions: '/frontdoor/v2/executions',
  accounts: '/frontdoor/v2/api-accounts',
  frontdoors: '/frontdoor/v2',
  enrolmentCodes: '/frontdoor/v2/{frontdoorId}/agents/enrollments',
  unknownAgents: '/frontdoor/v2/unknown-agents',
};

/** `choice` with its values, `boolean`, `number`, `time` or `text`. */
function kind(schema) {
  const item = schema.items ?? schema;
  if (item.enum) return { kind: 'choice', values: item.enum };
  if (item.anyOf?.some((each) => each.format === 'date-time')) return { kind: 'time' };
  if (item.type === 'boolean') return { kind: 'boolean' };
  if (item.type === 'integer') return { kind: 'number' };
  return { kind: 'text' };
}

const found = {};
for (const [name, path] of Object.entries(lists)) {
  const parameters = document.paths[path].get.parameters.filter((each) => each.in === 'query' && each.name !== 'sort');
  const filters = parameters.filter((each) => each.name !== 'tag').map((each) => ({ property: each.name, ...kind(each.schema) }));
  found[name] = { filters, tags: parameters.some((each) => each.name === 'tag') };
}

mkdirSync(here('src/generated'), { recursive: true });
writeFileSync(
  here('src/generated/filters.ts'),
  `// Made by scripts/filters.js from docs/openapi.json.
export type Filter = { property: string; kind: 'choice' | 'boolean' | 'number' | 'time' | 'text'; values?: string[] };
export type ListName = ${Object.keys(found).map((each) => `'${each}'`).join(' | ')};
export const lists: Record<ListName, { filters: Filter[]; tags: boolean }> = ${JSON.stringify(found, null, 1)};
`,
);
