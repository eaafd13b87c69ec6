// What is typed into a form, as the properties that are sent; and back. Run in a time zone that is not UTC.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Share, Tunnel } from '../../src/api/client';
import { patchOf } from '../../src/forms/consequences';
import { created, shareBody, shareDraft, tunnelBody, tunnelDraft } from '../../src/forms/drafts';

const share = {
  name: 'db', description: 'The database', ipsecTunnelId: 'tnl-1', envZId: 'zid', target: '10.20.0.20:5432', ingressPort: 5432,
  allowedSources: ['10.0.4.0/24', '10.0.5.1/32'], maxConnections: 20, idleTimeoutSeconds: 300, healthCheck: { type: 'tcp', intervalSeconds: 10 },
  proxyProtocol: 'v2', closeWhenUnserved: true, expiresAt: '2027-01-31T22:30:45.123Z', tags: { team: 'payments', empty: '' },
} as unknown as Share;
const tunnel = {
  name: 'customer-a', locationId: 'local', peerPublicIp: '203.0.113.2', peerId: '203.0.113.2', peerCidr: '10.0.0.0/16', loadBalancerIp: '100.64.0.1',
  initiate: false, ikeProposals: ['aes256gcm16-prfsha384-ecp384'], espProposals: ['aes256gcm16-ecp384'],
} as unknown as Tunnel;

test('a share that was not touched changes nothing', () => {
  assert.deepEqual(patchOf(share, shareBody(shareDraft(share), share)), {});
});

test('a tunnel that was not touched changes nothing', () => {
  assert.deepEqual(patchOf(tunnel, tunnelBody(tunnelDraft(tunnel), tunnel)), {});
});

test('a share of the fewest properties has no others', () => {
  const draft = { ...shareDraft(), name: ' db ', ipsecTunnelId: 'tnl-1', envZId: 'zid', target: ' 10.20.0.20:5432', ingressPort: '5432' };
  assert.deepEqual(created(shareBody(draft)), { name: 'db', ipsecTunnelId: 'tnl-1', envZId: 'zid', target: '10.20.0.20:5432', ingressPort: 5432, closeWhenUnserved: false });
});

test('what is emptied is removed', () => {
  const draft = { ...shareDraft(share), description: ' ', allowedSources: '', maxConnections: '', healthCheck: 'default' as const, proxyProtocol: false, expiresAt: '', tags: '' };
  assert.deepEqual(patchOf(share, shareBody(draft, share)), { description: null, allowedSources: null, maxConnections: null, healthCheck: null, proxyProtocol: null, expiresAt: null, tags: null });
});

test('text that is no number is left to the API to refuse', () => {
  assert.equal(shareBody({ ...shareDraft(), ingressPort: '54 32' }).ingressPort, '54 32');
  assert.equal(shareBody({ ...shareDraft(), maxConnections: '-1' }).maxConnections, '-1');
});

test('sources are separated by lines, commas or blanks', () => {
  assert.deepEqual(shareBody({ ...shareDraft(), allowedSources: '10.0.4.0/24,10.0.5.1\n\n 10.0.6.0/24 ' }).allowedSources, ['10.0.4.0/24', '10.0.5.1', '10.0.6.0/24']);
});

test("a time is typed in the browser's zone and sent in UTC", () => {
  assert.notEqual(new Date('2027-01-31T12:00:00Z').getTimezoneOffset(), 0);
  const draft = shareDraft(share);
  assert.equal(draft.expiresAt, '2027-01-31T23:30');
  assert.equal(shareBody({ ...draft, expiresAt: '2027-07-01T12:00' }, share).expiresAt, '2027-07-01T10:00:00.000Z');
  // The seconds of a time that was not touched are kept.
  assert.equal(shareBody(draft, share).expiresAt, '2027-01-31T22:30:45.123Z');
});

test('a value of a tag may contain an equals sign, and a tag may have no value', () => {
  assert.deepEqual(shareBody({ ...shareDraft(), tags: 'query = a=b\nbare\n\n' }).tags, { query: 'a=b', bare: '' });
});

test("a probe's interval belongs to the probe", () => {
  assert.deepEqual(shareBody({ ...shareDraft(), healthCheck: 'tcp', intervalSeconds: '' }).healthCheck, { type: 'tcp' });
  assert.deepEqual(shareBody({ ...shareDraft(), healthCheck: 'tcp', intervalSeconds: '15' }).healthCheck, { type: 'tcp', intervalSeconds: 15 });
  assert.deepEqual(shareBody({ ...shareDraft(), healthCheck: 'none', intervalSeconds: '15' }).healthCheck, { type: 'none' });
});

test('an identity that follows the address follows a new address', () => {
  const draft = tunnelDraft(tunnel);
  assert.equal(draft.peerId, '');
  assert.deepEqual(patchOf(tunnel, tunnelBody({ ...draft, peerPublicIp: '203.0.113.9' }, tunnel)), { peerPublicIp: '203.0.113.9', peerId: '203.0.113.9' });
  assert.equal(tunnelDraft({ ...tunnel, peerId: 'fqdn:site.example' }).peerId, 'fqdn:site.example');
  assert.equal(created(tunnelBody({ ...tunnelDraft(), peerPublicIp: '203.0.113.9' })).peerId, undefined);
});
