// Where a run of the guided start goes on after something of it was deleted.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resumed } from '../../src/pages/start/resume';

const here = { environment: false, tunnel: false, share: false };

test('a run of which nothing is gone is left alone', () => {
  assert.equal(resumed('check', here), undefined);
});

test('a run begins again at the first step that misses something', () => {
  assert.deepEqual(resumed('check', { ...here, share: true }), { step: 'share', share: undefined });
  assert.deepEqual(resumed('check', { ...here, tunnel: true, share: true }), { step: 'tunnel', tunnel: undefined, share: undefined });
  assert.deepEqual(resumed('share', { environment: true, tunnel: true, share: false }), { step: 'agent', environment: undefined, tunnel: undefined, share: undefined });
});

test('a step that comes before what is gone remains', () => {
  assert.deepEqual(resumed('agent', { ...here, tunnel: true }), { tunnel: undefined, share: undefined });
  assert.deepEqual(resumed('share', { ...here, share: true }), { share: undefined });
});
