// What is wrong now, as a list of causes: a share that fails because of its tunnel stands with the tunnel.
import type { Agent, Environment, Share } from '../../api/client';
import { agentState, counted, environmentState, shareState, type Tone } from '../../format';
import type { Readings, Trouble } from './trouble';
import { ofTunnels } from './tunnels';
import { ofUnknownAgents, ofUnknownPeers } from './unknown';

const OF_TUNNEL = ['PeerDown', 'TunnelNotReady', 'TunnelFailed', 'GatewayFull', 'PeerAddressTaken'];
const OF_TARGET = ['TargetUnreachable', 'TargetClosed'];
const OF_AGENTS = ['AgentOffline', 'AgentSilent'];

/** The causes, the worst first. */
export function troubles(readings: Readings): Trouble[] {
  const found = [
    ...server(readings.readiness),
    ...ofTunnels(readings),
    ...readings.environments.flatMap(environment),
    ...ofUnknownPeers(readings.unknownPeers),
    ...ofUnknownAgents(readings.unknownAgents),
  ];
  const rest = assign(found, readings);
  return [...found, ...rest].sort(worstFirst);
}

/** Puts each share to its cause, if that is listed, and returns those that are a cause of their own. */
function assign(found: Trouble[], { shares, environments }: Readings): Trouble[] {
  const causes = new Map(found.flatMap((each) => each.of.map((id) => [id, each] as const)));
  const others = new Map<string, Trouble>();
  const own: Share[] = [];
  for (const share of shares) {
    const reason = share.statusDetail?.reason ?? '';
    const cause = OF_TUNNEL.includes(reason) ? causes.get(share.ipsecTunnelId) : OF_AGENTS.includes(reason) ? causes.get(share.envZId) : undefined;
    if (cause) cause.shares.push(share);
    else if (OF_AGENTS.includes(reason)) silentEnvironment(others, share, environments).shares.push(share);
    else if (reason === 'GatewayOffline') location(others, share).shares.push(share);
    else own.push(share);
  }
  return [...others.values(), ...alike(own)];
}

/** Shares of one target, or with one message, are one cause. */
function alike(shares: Share[]): Trouble[] {
  const groups = new Map<string, Share[]>();
  for (const share of shares) {
    const reason = share.statusDetail?.reason ?? '';
    const key = OF_TARGET.includes(reason) ? `${reason} ${share.envZId} ${share.target}` : `${reason} ${share.statusDetail?.message ?? ''}`;
    groups.set(key, [...(groups.get(key) ?? []), share]);
  }
  return [...groups].map(([key, group]) => (group.length === 1 ? ofShare(group[0]!) : ofGroup(key, group)));
}

function ofGroup(key: string, shares: Share[]): Trouble {
  const [first] = shares as [Share];
  const reason = first.statusDetail?.reason;
  const target = reason !== undefined && OF_TARGET.includes(reason);
  const since = shares.map((share) => share.statusDetail?.since ?? '').sort()[0];
  return {
    key,
    of: [],
    subject: target ? 'Target' : 'Shares',
    name: target ? first.target : 'with one cause',
    ...(target ? { envZId: first.envZId } : {}),
    state: shareState(first),
    detail: { ...ofShare(first).detail, ...(since ? { since } : {}) },
    shares,
    filters: { ready: 'false', ...(reason ? { 'statusDetail.reason': reason } : {}), ...(target ? { envZId: first.envZId, target: first.target } : {}) },
  };
}

function server(readiness: Readings['readiness']): Trouble[] {
  if (!readiness || readiness.ready) return [];
  return (readiness.reasons ?? ['The server is not ready.']).map((message) => ({
    key: `server ${message}`,
    of: [],
    subject: 'Server',
    name: 'this server',
    state: { tone: 'bad', word: 'Not ready' },
    detail: { message },
    cure: 'See the log of the server and of the gateway.',
    shares: [],
  }));
}

/** The environment if no agent of it answers, otherwise those of its agents that do not. */
function environment(of: Environment): Trouble[] {
  const bad = of.agents.filter((agent) => agentState(agent).tone !== 'ok');
  const silent = of.agents.length > 0 && of.agents.every((agent) => agent.status === 'OFFLINE' || agent.unansweredSince);
  if (of.status !== 'OFFLINE' && !silent) return bad.map((agent) => ofAgent(agent, of));
  const last = of.agents.map((agent) => agent.unansweredSince ?? agent.lastSeen ?? '').sort().at(-1);
  return [
    {
      key: of.zId,
      of: [of.zId],
      subject: 'Environment',
      name: of.name,
      page: 'environments',
      id: of.zId,
      state: of.status === 'OFFLINE' ? environmentState(of) : { tone: 'bad', word: 'Silent' },
      detail: {
        reason: of.status === 'OFFLINE' ? 'AgentOffline' : 'AgentSilent',
        message: of.agents.length === 0 ? 'It has no agent.' : `${of.status === 'OFFLINE' ? 'No agent is connected' : 'No agent answers'} (${of.agents.map((agent) => agent.name).join(', ')}).`,
        ...(last ? { since: last } : {}),
      },
      shares: [],
      filters: { envZId: of.zId, ready: 'false', enabled: 'true' },
    },
  ];
}

function ofAgent(agent: Agent, of: Environment): Trouble {
  const state = agentState(agent);
  const since = agent.unansweredSince ?? agent.lastSeen;
  const seconds = Math.abs(agent.clockSecondsAhead ?? 0);
  const message =
    agent.status === 'OFFLINE'
      ? `The agent is not connected; other agents serve the environment ${of.name}.`
      : agent.unansweredSince
        ? `The agent does not answer; other agents serve the environment ${of.name}.`
        : `The clock of its host differs from the gateway's by ${counted(seconds, 'second')}.`;
  const cure =
    agent.status === 'OFFLINE'
      ? 'Start it, and check that its host reaches the gateway. Delete the agent if it is no longer used.'
      : agent.unansweredSince
        ? 'Check its host and the line to it.'
        : 'Set the clock of the host: certificates are valid by it.';
  return {
    key: agent.id,
    of: [],
    subject: 'Agent',
    name: agent.name,
    page: 'agents',
    id: agent.id,
    // Another agent serves, so no client notices.
    state: { tone: 'warn', word: state.word },
    detail: { message, ...(since ? { since } : {}) },
    cure,
    shares: [],
  };
}

function ofShare(share: Share): Trouble {
  return {
    key: share.id,
    of: [],
    subject: 'Share',
    name: share.name,
    page: 'shares',
    id: share.id,
    state: shareState(share),
    detail: share.statusDetail ?? { message: 'A connection from the site would not be served.' },
    shares: [],
  };
}

/** The API's list of environments does not say that an agent is silent; the shares do. */
function silentEnvironment(others: Map<string, Trouble>, share: Share, environments: Environment[]): Trouble {
  const found = others.get(share.envZId) ?? {
    key: share.envZId,
    of: [],
    subject: 'Environment' as const,
    name: environments.find((each) => each.zId === share.envZId)?.name ?? share.envZId,
    page: 'environments' as const,
    id: share.envZId,
    state: { tone: 'bad' as Tone, word: 'Silent' },
    detail: share.statusDetail!,
    shares: [],
    filters: { envZId: share.envZId, ready: 'false', enabled: 'true' },
  };
  others.set(share.envZId, found);
  return found;
}

function location(locations: Map<string, Trouble>, share: Share): Trouble {
  const found = locations.get(share.locationId) ?? {
    key: `location ${share.locationId}`,
    of: [],
    subject: 'Location' as const,
    name: share.locationId,
    state: { tone: 'bad' as Tone, word: 'Gateway offline' },
    detail: share.statusDetail!,
    shares: [],
    filters: { locationId: share.locationId, ready: 'false', 'statusDetail.reason': 'GatewayOffline' },
  };
  locations.set(share.locationId, found);
  return found;
}

const WEIGHT: Record<Tone, number> = { bad: 0, busy: 1, warn: 2, off: 3, ok: 4 };

/** By what it costs: not served before in doubt, many shares before few, then the newest. */
function worstFirst(a: Trouble, b: Trouble): number {
  return WEIGHT[a.state.tone] - WEIGHT[b.state.tone] || b.shares.length - a.shares.length || (b.detail.since ?? '').localeCompare(a.detail.since ?? '');
}
