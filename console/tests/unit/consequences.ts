// What a change does, before it is written; the sentences are those of `wicketgate apply`.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Share, Tunnel } from '../../src/api/client';
import { patchOf, proposalOf, saveLabel, shareChanges, shown, tunnelChanges } from '../../src/forms/consequences';

const share = { name: 'db', target: '10.20.0.20:5432', ingressPort: 5432, tags: { team: 'a', tier: '1' }, healthCheck: { type: 'tcp', intervalSeconds: 30 } } as unknown as Share;
const tunnel = { peerPublicIp: '203.0.113.2', connection: { state: 'UP', algorithms: { ike: 'AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384', esp: 'AES_CBC-256/HMAC_SHA2_256_128' } } } as unknown as Tunnel;
const effects = (changes: { effect: string }[]) => changes.map((change) => change.effect);

test('a patch has what differs, and nothing else', () => {
  assert.deepEqual(patchOf(share, { name: 'db', target: '10.20.0.21:5432', ingressPort: 5432 }), { target: '10.20.0.21:5432' });
  assert.deepEqual(patchOf(share, { description: null }), {});
  assert.deepEqual(patchOf({ description: 'old' }, { description: null }), { description: null });
});

test('a patch removes a property of an object by name', () => {
  assert.deepEqual(patchOf(share, { tags: { team: 'b' } }), { tags: { team: 'b', tier: null } });
  assert.deepEqual(patchOf(share, { healthCheck: { type: 'none' } }), { healthCheck: { type: 'none', intervalSeconds: null } });
  assert.deepEqual(patchOf(share, { tags: null }), { tags: null });
});

test('a change of a share never cuts, but is noticed or not', () => {
  assert.deepEqual(effects(shareChanges(share, { name: 'b', tags: null, target: 'x:1', ingressPort: 1, expiresAt: '2026-12-01T00:00:00Z' })), ['QUIET', 'QUIET', 'NOTICED', 'NOTICED', 'LATER']);
});

test('a property without a rule is taken for one that connections notice', () => {
  assert.deepEqual(effects(shareChanges(share, { somethingNew: 1 })), ['NOTICED']);
});

test('a change of an address of a tunnel cuts, and the site has to be configured again', () => {
  const [change] = tunnelChanges(tunnel, { peerPublicIp: '203.0.113.3' });
  assert.deepEqual([change!.effect, change!.reconfigures, change!.before, change!.after], ['CUTS', true, '203.0.113.2', '203.0.113.3']);
});

test('whether proposals cut is decided by the algorithms in use', () => {
  assert.deepEqual(effects(tunnelChanges(tunnel, { ikeProposals: ['aes128-sha256-modp2048', 'aes256gcm16-prfsha384-ecp384'] })), ['QUIET']);
  assert.deepEqual(effects(tunnelChanges(tunnel, { ikeProposals: ['aes128-sha256-modp2048'] })), ['CUTS']);
  // The group of an ESP proposal is for perfect forward secrecy, which the first CHILD SA does not have.
  assert.deepEqual(effects(tunnelChanges(tunnel, { espProposals: ['aes256-sha256-ecp384'] })), ['QUIET']);
  assert.deepEqual(effects(tunnelChanges(tunnel, { espProposals: null })), ['NOTICED']);
  const down = { connection: { state: 'DOWN' } } as unknown as Tunnel;
  assert.deepEqual(effects(tunnelChanges(down, { ikeProposals: ['aes128-sha256-modp2048'] })), ['NOTICED']);
});

test('the button says what is cut', () => {
  const cuts = tunnelChanges(tunnel, { name: 'b', peerPublicIp: '203.0.113.3' });
  assert.deepEqual([undefined, 0, 1, 2].map((open) => saveLabel(cuts, open)), ['Save and cut the open connections', 'Save changes', 'Save and cut 1 connection', 'Save and cut 2 connections']);
  assert.equal(saveLabel(tunnelChanges(tunnel, { name: 'b' }), 1), 'Save changes');
});

test("strongSwan's names become proposals", () => {
  assert.equal(proposalOf('AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384'), 'aes256gcm16-prfsha384-ecp384');
  assert.equal(proposalOf('AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048'), 'aes256-sha256-modp2048');
  assert.equal(proposalOf('AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519'), 'aes128gcm16-prfsha256-x25519');
});

test('values are written for people', () => {
  assert.deepEqual([undefined, null, '', [], {}].map(shown), Array(5).fill('(none)'));
  assert.deepEqual([true, false, 3, ['a', 'b'], { type: 'tcp', intervalSeconds: null }].map(shown), ['yes', 'no', '3', 'a, b', 'type tcp']);
});

test('the command line says the same of each property of a tunnel that cuts', () => {
  const effect = readFileSync('../crates/cli/src/apply/effect.rs', 'utf8');
  for (const property of ['peerPublicIp', 'peerId', 'peerCidr', 'loadBalancerIp', 'ikeProposals', 'espProposals']) {
    const [change] = tunnelChanges({ connection: {} } as Tunnel, { [property]: ['aes256'] });
    assert.ok(effect.includes(JSON.stringify(change!.says)), `${property}: ${change!.says}`);
  }
});
