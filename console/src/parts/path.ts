// The stations between a client at the site and the target of a share, with what is known of each. Pure: the same
// resources always give the same picture.
import type { Agent, Schemas, Share, Tunnel } from '../api/client';
import { isAwaited, isGone, type Tone } from '../format';

export type Check = Schemas['Check'];
type Hop = Check['hops'][number];

export type StationKey = 'site' | 'tunnel' | 'gateway' | 'listener' | 'agents' | 'target';
export type StationState = 'OK' | 'WARNING' | 'FAILED' | 'WORKING' | 'UNKNOWN' | 'OFF';
export const TONES: Record<StationState, Tone> = { OK: 'ok', WARNING: 'warn', FAILED: 'bad', WORKING: 'busy', UNKNOWN: 'off', OFF: 'off' };

/** Why a station is not as it should be, and what to do. */
export interface Problem {
  reason: string;
  message: string;
  advice?: string;
  since?: string;
  /** Whether the server has a page about the reason. */
  documented: boolean;
  /** False: connections pass all the same. */
  blocks: boolean;
}

/** One of several things that a station consists of, such as an agent. */
export interface Member {
  id: string;
  name: string;
  state: StationState;
  word: string;
  note?: string;
}

export interface Station {
  key: StationKey;
  title: string;
  /** Addresses and the like, for monospaced type. */
  facts: string[];
  state: StationState;
  word: string;
  latencyMs?: number;
  problems: Problem[];
  members: Member[];
}

export interface PathFacts {
  share?: Share;
  tunnel?: Tunnel;
  /** As far as is known, the tunnel's device has never been connected. */
  neverUp?: boolean;
  agents?: Agent[];
  environmentName?: string;
  /** The latest check, while it still describes the present: see `Checks`. */
  check?: Check | undefined;
}

const GATEWAY_REASONS = ['GatewayOffline', 'GatewayUnreachable', 'GatewayFull', 'PeerAddressTaken', 'TunnelFailed', 'RedundancyLost'];
const LISTENER_REASONS = ['PortInUse', 'ListenerFailed', 'TunnelNotReady', 'ConnectionLimit', 'ConnectionsRefused', 'Expired'];
const AGENT_REASONS = ['AgentOffline', 'AgentSilent', 'AgentPending', 'AgentRefused', 'AgentExhausted', 'AgentDuplicated'];
const TARGET_REASONS = ['TargetUnreachable', 'TargetClosed', 'ConnectionsFail', 'ConnectionsUnanswered'];
/** Reasons that leave a share `ready`. */
const HARMLESS = ['AgentDuplicated', 'ConnectionsUnanswered', 'ConnectionsRefused', 'RedundancyLost'];
/** Warnings of a connection that concern the hosts of the site rather than the tunnel. */
const SITE_WARNINGS = ['NoTrafficReceived', 'PortWithoutShare', 'PacketsOutsideSelectors'];

/** The path of a share, from the site to the target. A tunnel alone has the first three stations. */
export function pathOf(facts: PathFacts): Station[] {
  const stations = [siteOf(facts), tunnelOf(facts), gatewayOf(facts)];
  if (facts.share) stations.push(listenerOf(facts, facts.share), agentsOf(facts, facts.share), targetOf(facts, facts.share));
  return stations.map((station) => capital(checked(station, facts.check))).map((station) => ({ ...station, members: station.members.map(capital) }));
}

function capital<T extends { word: string }>(one: T): T {
  return { ...one, word: one.word.charAt(0).toUpperCase() + one.word.slice(1) };
}

/** Whether packets of the site arrive at the gateway, as far as is known. */
function isConnected(tunnel: Tunnel): boolean {
  const silent = tunnel.connection.warnings?.some((warning) => warning.reason === 'PeerSilent') ?? false;
  return (tunnel.connection.state === 'UP' || tunnel.ready) && !silent && tunnel.status !== 'DISABLED' && !isGone(tunnel);
}

/** The first station that no connection passes. */
export function breakOf(stations: Station[]): Station | undefined {
  return stations.find((station) => station.state === 'FAILED' || station.state === 'OFF');
}

function station(key: StationKey, title: string, facts: (string | undefined)[], state: StationState, word: string): Station {
  return { key, title, facts: facts.filter((fact) => fact !== undefined), state, word, problems: [], members: [] };
}

function siteOf({ tunnel }: PathFacts): Station {
  const site = station('site', 'Site', [tunnel?.peerCidr], 'UNKNOWN', 'not visible');
  if (!tunnel || !isConnected(tunnel)) return site;
  if (tunnel.connection.state !== 'UP') return { ...site, word: 'not checked' };
  const warnings = (tunnel.connection.warnings ?? []).filter((warning) => SITE_WARNINGS.includes(warning.reason));
  site.problems = warnings.map((warning) => ({ ...named(warning), blocks: false }));
  // A port without a share concerns hosts that want something else than this share.
  const doubtful = warnings.filter((warning) => warning.reason !== 'PortWithoutShare');
  const idle = doubtful.some((warning) => warning.reason === 'NoTrafficReceived');
  return { ...site, state: doubtful.length > 0 ? 'WARNING' : 'OK', word: idle ? 'no traffic yet' : 'connected' };
}

function tunnelOf({ tunnel, neverUp }: PathFacts): Station {
  const connection = tunnel?.connection;
  if (tunnel && isGone(tunnel)) return station('tunnel', 'Tunnel', [tunnel.peerPublicIp], 'OFF', tunnel.status.toLowerCase());
  const result = station('tunnel', 'Tunnel', [connection?.peer?.address ?? tunnel?.peerPublicIp, connection?.algorithms?.esp], 'UNKNOWN', 'unknown');
  if (!tunnel || !connection) return result;
  if (tunnel.status === 'DISABLED') return { ...result, state: 'OFF', word: 'disabled' };
  if (connection.state !== 'UP' && tunnel.ready) return { ...result, state: 'OK', word: 'no IPsec' };
  // A device that has yet to be configured is no fault.
  if (neverUp && isAwaited(tunnel)) return { ...result, word: 'waiting for the device', problems: unnamed(tunnel).map((problem) => ({ ...problem, reason: 'AWAITED', blocks: false })) };
  const warnings = (connection.warnings ?? []).filter((warning) => !SITE_WARNINGS.includes(warning.reason));
  const isUp = connection.state === 'UP';
  if (connection.lastError) result.problems.push({ ...named(connection.lastError), blocks: !isUp });
  result.problems.push(...warnings.map((warning) => ({ ...named(warning), blocks: warning.reason === 'PeerSilent' })));
  if (!isUp && result.problems.length === 0) result.problems.push(...unnamed(tunnel));
  const blocked = result.problems.some((problem) => problem.blocks);
  if (isUp) return { ...result, state: blocked ? 'FAILED' : result.problems.length > 0 ? 'WARNING' : 'OK', word: blocked ? 'silent' : 'up' };
  if (connection.state === 'CONNECTING' && !connection.lastError) return { ...result, state: 'WORKING', word: 'connecting' };
  return { ...result, state: 'FAILED', word: connection.state === 'IDLE' ? 'idle' : connection.state === 'CONNECTING' ? 'retrying' : 'down' };
}

/** What is known of a connection that is not up and for which nothing is reported. */
function unnamed(tunnel: Tunnel): Problem[] {
  const { state, since } = tunnel.connection;
  if (state === 'IDLE') {
    return [{ reason: 'IDLE', documented: false, message: 'There is an IKE SA without a CHILD SA, so no traffic passes.', since, blocks: true,
      advice: 'Have the device bring up the CHILD SA with the networks of its configuration.' }];
  }
  if (state !== 'DOWN' || tunnel.status !== 'DEPLOYED') return [];
  return [{ reason: 'DOWN', documented: false, message: `The gateway has received nothing from ${tunnel.peerPublicIp} since the tunnel was created or last changed.`, since, blocks: true,
    advice: 'Have the device start the connection. If it does: its address differs from peerPublicIp, or UDP 500 and 4500 are dropped on the way.' }];
}

function gatewayOf({ tunnel, share }: PathFacts): Station {
  const result = station('gateway', 'Gateway', [tunnel?.gatewayPublicIp, tunnel?.locationId ?? share?.locationId], 'UNKNOWN', 'unknown');
  if (!tunnel) return result;
  const detail = [tunnel.statusDetail, share?.statusDetail].find((one) => one && GATEWAY_REASONS.includes(one.reason));
  if (detail) result.problems.push({ ...named(detail), blocks: tunnel.status !== 'DEPLOYED' || detail !== tunnel.statusDetail });
  if (tunnel.status === 'DISABLED') return { ...result, state: 'OFF', word: 'disabled' };
  if (tunnel.status === 'DEPLOYED') return detail ? { ...result, state: 'FAILED', word: 'failed' } : { ...result, state: 'OK', word: 'ready' };
  if (tunnel.status === 'ERROR') {
    if (!detail && tunnel.statusDetail) result.problems.push({ ...named(tunnel.statusDetail), blocks: true });
    return { ...result, state: 'FAILED', word: 'failed' };
  }
  return tunnel.status === 'NEW' ? { ...result, state: 'WORKING', word: 'deploying' } : { ...result, state: 'OFF', word: tunnel.status.toLowerCase() };
}

function listenerOf({ tunnel }: PathFacts, share: Share): Station {
  const result = station('listener', 'Ingress port', [`${tunnel?.loadBalancerIp ?? '…'}:${share.ingressPort}`], 'OK', 'open');
  const detail = share.statusDetail;
  if (share.status === 'DISABLED') {
    if (detail && share.enabled === false) result.problems.push({ ...named(detail), blocks: true });
    return { ...result, state: 'OFF', word: 'disabled' };
  }
  if (isGone(share)) return { ...result, state: 'OFF', word: share.status.toLowerCase() };
  if (detail && LISTENER_REASONS.includes(detail.reason)) {
    const blocks = !HARMLESS.includes(detail.reason);
    result.problems.push({ ...named(detail), blocks });
    return { ...result, state: blocks ? 'FAILED' : 'WARNING', word: detail.reason === 'Expired' ? 'expired' : blocks ? 'closed' : 'refusing' };
  }
  if (share.status === 'NEW') return { ...result, state: 'WORKING', word: 'opening' };
  if (share.status === 'ERROR' && detail && ![...AGENT_REASONS, ...TARGET_REASONS].includes(detail.reason)) {
    if (!GATEWAY_REASONS.includes(detail.reason)) result.problems.push({ ...named(detail), blocks: true });
    return { ...result, state: 'UNKNOWN', word: 'not served' };
  }
  return result;
}

function agentsOf({ agents, environmentName }: PathFacts, share: Share): Station {
  const members = (agents ?? []).map((agent) => memberOf(agent, share));
  const serving = members.filter((member) => member.state === 'OK').length;
  const title = members.length === 1 ? 'Agent' : 'Agents';
  const result = station('agents', title, [`in ${environmentName ?? share.envZId}`], 'UNKNOWN', 'unknown');
  result.members = members;
  const detail = share.statusDetail;
  if (detail && AGENT_REASONS.includes(detail.reason)) {
    const blocks = !HARMLESS.includes(detail.reason);
    result.problems.push({ ...named(detail), blocks });
    return { ...result, state: blocks ? 'FAILED' : 'WARNING', word: blocks ? 'not serving' : 'duplicated' };
  }
  if (!agents) return result;
  const connected = agents.filter((agent) => agent.status === 'CONNECTED');
  if (connected.length === 0) return { ...result, state: 'FAILED', word: members.length === 0 ? 'none' : 'offline' };
  if (members.length === 1) return { ...result, state: members[0]!.state, word: members[0]!.word };
  const degraded = serving < members.length;
  return { ...result, state: serving === 0 ? 'FAILED' : degraded ? 'WARNING' : 'OK', word: `${serving} of ${members.length} serving` };
}

function memberOf(agent: Agent, share: Share): Member {
  const seen = agent.shares?.find((one) => one.id === share.id);
  const base = { id: agent.id, name: agent.name, note: seen?.message };
  if (agent.status === 'OFFLINE') return { ...base, state: 'FAILED', word: 'offline' };
  if (agent.unansweredSince) return { ...base, state: 'FAILED', word: 'silent' };
  if (seen?.state === 'REFUSED') return { ...base, state: 'FAILED', word: 'refuses' };
  if (seen?.state === 'PENDING') return { ...base, state: 'WORKING', word: 'pending' };
  // An agent that does not reach the target is itself in order: the target's station has the fault.
  return { ...base, state: 'OK', word: 'connected' };
}

function targetOf({ agents }: PathFacts, share: Share): Station {
  const result = station('target', 'Target', [share.target], 'UNKNOWN', 'unknown');
  const seen = (agents ?? []).filter((agent) => agent.status === 'CONNECTED' && !agent.unansweredSince)
    .flatMap((agent) => agent.shares?.filter((one) => one.id === share.id) ?? []);
  const detail = share.statusDetail;
  if (detail && TARGET_REASONS.includes(detail.reason)) {
    const blocks = !HARMLESS.includes(detail.reason);
    result.problems.push({ ...named(detail), blocks });
    return { ...result, state: blocks ? 'FAILED' : 'WARNING', word: blocks ? 'not reached' : 'no answers' };
  }
  if (seen.some((one) => one.state === 'SERVING')) return { ...result, state: 'OK', word: 'reached' };
  const failed = seen.find((one) => one.state === 'UNREACHABLE');
  if (!failed) return result;
  result.problems.push({ reason: 'TargetUnreachable', message: failed.message ?? 'No agent reaches the target.', documented: true, blocks: true });
  return { ...result, state: 'FAILED', word: 'not reached' };
}

const HOPS: Record<StationKey, Hop['hop'] | undefined> = {
  site: undefined, tunnel: 'ikeSa', gateway: 'tunnel', listener: 'listener', agents: 'agent', target: 'target',
};

/** Adds the measured time of a check, its cure, and a fault that only the check has seen. */
function checked(at: Station, check: Check | undefined): Station {
  const hop = check?.hops.find((one) => one.hop === HOPS[at.key]);
  if (!hop) return at;
  const result = { ...at, latencyMs: hop.latencyMs };
  if (hop.state !== 'FAILED') return result;
  // A fault that is known already says more than the check's line.
  if (at.problems.some((problem) => problem.blocks)) return result;
  const found = { reason: hop.reason ?? 'Check', documented: hop.reason !== undefined, message: hop.message, advice: hop.advice, since: check?.checkedAt, blocks: true };
  return { ...result, state: 'FAILED', word: 'check failed', problems: [...at.problems, found] };
}

function named(one: { reason: string; message: string; since?: string }): Omit<Problem, 'blocks'> {
  return { reason: one.reason, message: one.message, since: one.since, documented: true };
}
