// Which handover links a new key ends, and which addresses only this host reaches.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endedWithKey, isLoopback, type HandoverLink } from '../../src/pages/tunnel/handover';

test('a new key ends the links that are in effect', () => {
  const links = (...states: HandoverLink['state'][]) => states.map((state) => ({ state }));
  assert.equal(endedWithKey(links()), undefined);
  assert.equal(endedWithKey(links('EXPIRED', 'REVOKED')), undefined);
  assert.match(endedWithKey(links('ACTIVE', 'EXPIRED'))!, /^1 handover link of this tunnel ends/);
  assert.match(endedWithKey(links('ACTIVE', 'USED_UP', 'REVOKED'))!, /^2 handover links of this tunnel end/);
});

test('only this host reaches a loopback address', () => {
  for (const host of ['127.0.0.1:8480', '127.1.2.3', 'localhost:8480', 'gw.localhost', '[::1]:8480']) assert.equal(isLoopback(`http://${host}/site#x`), true, host);
  for (const host of ['203.0.113.1', 'gw.example', 'localhost.example', '[2001:db8::1]', '10.127.0.1']) assert.equal(isLoopback(`https://${host}/site#x`), false, host);
});
