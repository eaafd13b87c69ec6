// How long a request waits that the server refuses for its rate.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elapsed, pause } from '../../src/api/patience';

const answer = (status: number, after?: string) => ({ status, headers: { get: () => after ?? null } });

test('only a 429 with a time is sent again', () => {
  assert.equal(pause(answer(429, '7')), 7);
  assert.equal(pause(answer(429, '0')), 1);
  for (const other of [answer(429), answer(429, 'soon'), answer(503, '5'), answer(200, '5')]) assert.equal(pause(other), undefined);
});

test('a wait ends with its page', async () => {
  const page = new AbortController();
  const waiting = elapsed(3600, page.signal);
  page.abort(new Error('the page is gone'));
  await assert.rejects(waiting, /the page is gone/);
  await assert.rejects(elapsed(3600, page.signal), /the page is gone/);
  await elapsed(0.001, new AbortController().signal);
});
