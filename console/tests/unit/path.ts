// The stations of a share's path for what the API says of share, tunnel and agents.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Agent, Share, Tunnel } from '../../src/api/client';
import { tunnelState } from '../../src/format';
import { wasNeverUp } from '../../src/pages/tunnel/history';
import { breakOf, pathOf, type Check, type PathFacts, type StationKey } from '../../src/parts/path';

const AT = '2026-11-29T12:00:00Z';
const tunnel = { id: 'tnl-1', status: 'DEPLOYED', ready: true, peerPublicIp: '203.0.113.2', peerCidr: '10.0.0.0/16', loadBalancerIp: '100.64.0.1', connection: { state: 'UP', since: AT } } as Tunnel;
const share = { id: 'shr-1', status: 'DEPLOYED', ready: true, enabled: true, ingressPort: 5432, target: '10.20.0.20:5432', envZId: 'zid' } as Share;
const agent = { id: 'agt-1', name: 'one', status: 'CONNECTED', shares: [{ id: 'shr-1', name: 'db', state: 'SERVING' }] } as unknown as Agent;
const well: PathFacts = { share, tunnel, agents: [agent] };

const detail = (reason: string) => ({ reason, message: 'so it is', since: AT }) as Share['statusDetail'];
const at = (facts: PathFacts, key: StationKey) => pathOf(facts).find((station) => station.key === key)!;
const states = (facts: PathFacts) => pathOf(facts).map((station) => station.state);

test('everything is in order from the site to the target', () => {
  assert.deepEqual(states(well), ['OK', 'OK', 'OK', 'OK', 'OK', 'OK']);
  assert.deepEqual(pathOf(well).map((station) => station.word), ['Connected', 'Up', 'Ready', 'Open', 'Connected', 'Reached']);
  assert.equal(breakOf(pathOf(well)), undefined);
});

test('a tunnel alone has three stations', () => {
  assert.deepEqual(pathOf({ tunnel }).map((station) => station.key), ['site', 'tunnel', 'gateway']);
});

test('nothing is claimed of what is not known', () => {
  assert.deepEqual(states({}), ['UNKNOWN', 'UNKNOWN', 'UNKNOWN']);
  assert.equal(at({ share, tunnel }, 'agents').state, 'UNKNOWN');
});

test('each reason of a share breaks the path at its station', () => {
  const stations: Record<string, StationKey> = { GatewayFull: 'gateway', PortInUse: 'listener', Expired: 'listener', AgentOffline: 'agents', AgentRefused: 'agents', TargetUnreachable: 'target', ConnectionsFail: 'target' };
  for (const [reason, key] of Object.entries(stations)) {
    const facts = { ...well, share: { ...share, ready: false, statusDetail: detail(reason) } as Share };
    assert.equal(breakOf(pathOf(facts))?.key, key, reason);
    const [problem] = at(facts, key).problems;
    assert.deepEqual([problem?.reason, problem?.blocks, problem?.documented], [reason, true, true]);
  }
});

test('a reason that leaves a share ready is a warning', () => {
  for (const [reason, key] of [['ConnectionsUnanswered', 'target'], ['ConnectionsRefused', 'listener'], ['AgentDuplicated', 'agents']] as const) {
    const facts = { ...well, share: { ...share, statusDetail: detail(reason) } as Share };
    assert.equal(at(facts, key).state, 'WARNING', reason);
    assert.equal(breakOf(pathOf(facts)), undefined, reason);
  }
});

test('a tunnel that is down says what the gateway has seen', () => {
  const down = { ...tunnel, ready: false, connection: { ...tunnel.connection, state: 'DOWN' } } as Tunnel;
  const [problem] = at({ tunnel: down }, 'tunnel').problems;
  assert.match(problem!.message, /received nothing from 203\.0\.113\.2/);
  assert.equal(problem!.documented, false);
  const refused = { ...down, connection: { ...down.connection, lastError: { reason: 'NoCommonIkeProposal', message: 'no common proposal', since: AT } } } as unknown as Tunnel;
  assert.equal(at({ tunnel: refused }, 'tunnel').problems[0]?.reason, 'NoCommonIkeProposal');
  assert.equal(at({ tunnel: refused }, 'site').state, 'UNKNOWN');
});

test('a tunnel whose device has never connected waits, unless the device was refused', () => {
  const down = { ...tunnel, ready: false, connection: { ...tunnel.connection, state: 'DOWN' } } as Tunnel;
  const waiting = at({ tunnel: down, neverUp: true }, 'tunnel');
  assert.deepEqual([waiting.state, waiting.word, waiting.problems.map((problem) => problem.blocks)], ['UNKNOWN', 'Waiting for the device', [false]]);
  assert.deepEqual([tunnelState(down, true).tone, tunnelState(down).tone], ['off', 'bad']);
  const refused = { ...down, connection: { ...down.connection, lastError: { reason: 'NoCommonIkeProposal', message: 'm', since: AT } } } as unknown as Tunnel;
  assert.equal(at({ tunnel: refused, neverUp: true }, 'tunnel').state, 'FAILED');
  assert.equal(tunnelState(refused, true).word, 'Down');
});

test('a device was never connected if every change is known and none is to UP', () => {
  assert.equal(wasNeverUp([]), true);
  assert.equal(wasNeverUp([{ number: 2, state: 'DOWN' }, { number: 1, state: 'CONNECTING' }]), true);
  assert.equal(wasNeverUp([{ number: 2, state: 'DOWN' }, { number: 1, state: 'UP' }]), false);
  // The first ones are no longer kept.
  assert.equal(wasNeverUp([{ number: 9, state: 'DOWN' }]), false);
});

test('warnings of a connection stand at the site or at the tunnel', () => {
  const warned = (reason: string) => ({ tunnel: { ...tunnel, connection: { ...tunnel.connection, warnings: [{ reason, message: 'm', since: AT }] } } as Tunnel });
  assert.deepEqual(states(warned('NoTrafficReceived')), ['WARNING', 'OK', 'OK']);
  assert.equal(at(warned('NoTrafficReceived'), 'site').word, 'No traffic yet');
  // Somebody asks for another port: this share is not concerned.
  assert.deepEqual(states(warned('PortWithoutShare')), ['OK', 'OK', 'OK']);
  assert.equal(at(warned('PeerSilent'), 'tunnel').state, 'FAILED');
});

test('what was disabled is off, and no fault', () => {
  const facts = { ...well, tunnel: { ...tunnel, status: 'DISABLED' } as Tunnel };
  assert.deepEqual([at(facts, 'tunnel').state, at(facts, 'gateway').state], ['OFF', 'OFF']);
  assert.equal(at({ ...well, share: { ...share, status: 'DISABLED' } as Share }, 'listener').state, 'OFF');
});

test('a tunnel that is deleted has no connection, whatever was last reported of it', () => {
  for (const status of ['DELETING', 'DELETED'] as const) {
    const gone = { ...tunnel, status } as Tunnel;
    assert.deepEqual(states({ tunnel: gone }), ['UNKNOWN', 'OFF', 'OFF'], status);
    assert.equal(at({ tunnel: gone }, 'tunnel').word.toUpperCase(), status);
  }
});

test('of several agents, one that is gone is a warning and all are a fault', () => {
  const gone = { ...agent, id: 'agt-2', name: 'two', status: 'OFFLINE' } as Agent;
  assert.deepEqual([at({ ...well, agents: [agent, gone] }, 'agents').state, at({ ...well, agents: [agent, gone] }, 'agents').word], ['WARNING', '1 of 2 serving']);
  assert.equal(at({ ...well, agents: [gone] }, 'agents').state, 'FAILED');
  assert.equal(at({ ...well, agents: [] }, 'agents').word, 'None');
  const silent = { ...agent, unansweredSince: AT } as Agent;
  assert.deepEqual(at({ ...well, agents: [silent] }, 'agents').members.map((member) => [member.state, member.word]), [['FAILED', 'Silent']]);
});

test('an agent that does not reach the target is itself in order', () => {
  const unreached = { ...agent, shares: [{ id: 'shr-1', name: 'db', state: 'UNREACHABLE', message: 'connection refused' }] } as unknown as Agent;
  const facts = { ...well, agents: [unreached] };
  assert.equal(at(facts, 'agents').state, 'OK');
  assert.deepEqual([at(facts, 'target').state, at(facts, 'target').problems[0]?.message], ['FAILED', 'connection refused']);
});

test('a check adds times, and only a fault that is not known already', () => {
  const hops = [{ hop: 'ikeSa', state: 'OK', message: 'up', latencyMs: 1.5 }, { hop: 'target', state: 'FAILED', reason: 'TargetUnreachable', message: 'timed out', advice: 'start it', latencyMs: 900 }];
  const check = { ok: false, checkedAt: AT, hops } as unknown as Check;
  assert.equal(at({ ...well, check }, 'tunnel').latencyMs, 1.5);
  const found = at({ ...well, check }, 'target');
  assert.deepEqual([found.state, found.word, found.problems.map((problem) => problem.advice)], ['FAILED', 'Check failed', ['start it']]);
  const known = { ...well, check, share: { ...share, ready: false, statusDetail: detail('TargetUnreachable') } as Share };
  assert.deepEqual(at(known, 'target').problems.map((problem) => problem.message), ['so it is']);
});
