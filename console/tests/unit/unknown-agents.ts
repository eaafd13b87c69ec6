// What the overview says of agents that the database does not know.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { UnknownAgent } from '../../src/api/client';
import { ofUnknownAgents } from '../../src/pages/overview/unknown';

const agent = (name: string, firstSeenAt: string) => ({ id: `agt-${name}`, name, firstSeenAt }) as UnknownAgent;

test('no unknown agent is no trouble', () => {
  assert.deepEqual(ofUnknownAgents([]), []);
});

test('one unknown agent is named, and leads to their page', () => {
  const [found, ...others] = ofUnknownAgents([agent('dc-1', '2026-11-29T12:00:00Z')]);
  assert.deepEqual(others, []);
  assert.equal(found?.name, 'dc-1');
  assert.equal(found?.page, 'unknown-agents');
  assert.equal(found?.id, undefined);
});

test('several unknown agents are one entry, since the first attempt', () => {
  const found = ofUnknownAgents([agent('dc-2', '2026-11-29T12:00:05Z'), agent('dc-1', '2026-11-29T12:00:00Z')]);
  assert.equal(found.length, 1);
  assert.equal(found[0]?.name, '2 unknown agents');
  assert.equal(found[0]?.detail.since, '2026-11-29T12:00:00Z');
  assert.match(found[0]?.cure ?? '', /adopt those that you know/);
});
