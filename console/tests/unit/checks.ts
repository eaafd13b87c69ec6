// Until when a check describes the present.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Share, Tunnel } from '../../src/api/client';
import { Checks } from '../../src/parts/checks';
import type { Check } from '../../src/parts/path';

const AT = '2026-11-29T12:00:00Z';
const LATER = '2026-11-29T12:00:05Z';
const check = (ok: boolean) => ({ ok, checkedAt: AT, hops: [] }) as unknown as Check;
const ready = { status: 'DEPLOYED', ready: true } as Share;
const failing = { status: 'DEPLOYED', ready: false, statusDetail: { reason: 'TargetUnreachable', message: 'm', since: '2026-11-29T11:00:00Z' } } as Share;
const tunnel = { status: 'DEPLOYED', ready: true, connection: { state: 'UP', since: '2026-11-29T11:00:00Z' } } as Tunnel;

test('a failed check is past once the share is ready again, and remains past', () => {
  const checks = new Checks();
  const failed = check(false);
  assert.equal(checks.present(failed, failing, tunnel), failed);
  assert.equal(checks.present(failed, ready, tunnel), undefined);
  assert.equal(checks.present(failed, failing, tunnel), undefined);
  const next = check(false);
  assert.equal(checks.present(next, failing, tunnel), next);
});

test('a failed check of a share that is ready holds while nothing changes', () => {
  const checks = new Checks();
  const failed = check(false);
  assert.equal(checks.present(failed, ready, undefined), failed);
  // The tunnel is read for the first time, which is no change.
  assert.equal(checks.present(failed, ready, tunnel), failed);
  assert.equal(checks.present(failed, ready, { ...tunnel, connection: { ...tunnel.connection, state: 'DOWN' } } as Tunnel), undefined);
});

test('a failed check is past if a change has a later time', () => {
  const failed = check(false);
  assert.equal(new Checks().present(failed, { ...ready, updatedAt: LATER } as Share, tunnel), undefined);
  assert.equal(new Checks().present(failed, ready, { ...tunnel, connection: { ...tunnel.connection, since: LATER } } as Tunnel), undefined);
});

test('the times of a check that passed remain', () => {
  const checks = new Checks();
  const passed = check(true);
  assert.equal(checks.present(passed, ready, tunnel), passed);
  assert.equal(checks.present(passed, failing, tunnel), passed);
});
