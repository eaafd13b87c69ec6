// What is wrong now, as a list of causes: a share that fails because of its tunnel stands with the tunnel.
import type { Agent, Environment, Schemas, Share, Tunnel } from '../../api/client';
import type { Parameters } from '../../route.svelte';
import { agentState, ago, connectionState, counted, environmentState, shareState, tunnelState, type State, type Tone } from '../../format';

export type Trouble = {
  key: string;
  /** The word for what it is about. */
  subject: 'Server' | 'Tunnel' | 'Environment' | 'Agent' | 'Share' | 'Target' | 'Shares' | 'Location' | 'Unknown peer';
  name: string;
  /** The page of the resource. */
  page?: 'tunnels' | 'environments' | 'agents' | 'shares';
  id?: string;
  /** The environment of a target. */
  envZId?: string;
  state: State;
  detail: { reason?: string; message: string; since?: string };
  /** What to do, if neither the message nor the reason's page says it. */
  cure?: string;
  /** Shares that are not served because of it, as far as they were read. */
  shares: Share[];
  /** The list of these shares. */
  filters?: Parameters;
};

export type Readings = {
  readiness: Schemas['Readiness'] | undefined;
  failedTunnels: Tunnel[];
  downTunnels: Tunnel[];
  upTunnels: Tunnel[];
  environments: Environment[];
  shares: Share[];
  unknownPeers: Schemas['UnknownPeer'][];
};

const OF_TUNNEL = ['PeerDown', 'TunnelNotReady', 'TunnelFailed', 'GatewayFull'];
const OF_TARGET = ['TargetUnreachable', 'TargetClosed'];
const OF_AGENTS = ['AgentOffline', 'AgentSilent'];
/** Unknown peers that are listed; a scan from the internet may cause many. */
const PEERS = 3;

/** The causes, the worst first. */
export function troubles(readings: Readings): Trouble[] {
  const found = [
    ...server(readings.readiness),
    ...readings.failedTunnels.map(failedTunnel),
    // Without IPsec, a tunnel has no connection and is ready.
    ...readings.downTunnels.filter((tunnel) => !tunnel.ready).map(downTunnel),
    ...readings.upTunnels.filter(inDoubt).map(doubtfulTunnel),
    ...readings.environments.flatMap(environment),
    ...readings.unknownPeers.slice(0, PEERS).map(unknownPeer),
  ];
  const rest = assign(found, readings);
  return [...found, ...rest].sort(worstFirst);
}

/** Puts each share to its cause, if that is listed, and returns those that are a cause of their own. */
function assign(found: Trouble[], { shares, environments }: Readings): Trouble[] {
  const causes = new Map(found.map((each) => [each.key, each]));
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
    subject: 'Server',
    name: 'this server',
    state: { tone: 'bad', word: 'Not ready' },
    detail: { message },
    cure: 'See the log of the server and of the gateway.',
    shares: [],
  }));
}

function failedTunnel(tunnel: Tunnel): Trouble {
  return ofTunnel(tunnel, tunnelState(tunnel), tunnel.statusDetail ?? { message: 'The tunnel is not in effect at the gateway.' });
}

function downTunnel(tunnel: Tunnel): Trouble {
  const connection = tunnel.connection!;
  if (connection.lastError) return ofTunnel(tunnel, connectionState(connection.state), connection.lastError);
  const messages: Record<string, [string, string]> = {
    DOWN: ["The site's device is not connected, and no error is known.", `Start the connection at the device. If it tries already, it has to send from ${tunnel.peerPublicIp}, and UDP 500 and 4500 have to pass both ways. If it sends from another address, that one is listed as an unknown peer.`],
    CONNECTING: ['An IKE SA is being negotiated.', 'Wait a few seconds. If it remains, read the IKE log of the tunnel.'],
    IDLE: ['There is an IKE SA without a CHILD SA, so nothing passes.', 'Have the device bring up the CHILD SA with the networks of its configuration.'],
  };
  const [message, cure] = messages[connection.state] ?? ['The tunnel is not connected.', 'Read the IKE log of the tunnel.'];
  return { ...ofTunnel(tunnel, connectionState(connection.state), { message, since: connection.since }), cure };
}

function inDoubt(tunnel: Tunnel): boolean {
  return (tunnel.connection?.warnings?.length ?? 0) > 0 || tunnel.connection?.lastError !== undefined;
}

function doubtfulTunnel(tunnel: Tunnel): Trouble {
  const warnings = tunnel.connection!.warnings ?? [];
  const worst = warnings.find((each) => each.reason === 'PeerSilent') ?? tunnel.connection!.lastError ?? warnings[0]!;
  return ofTunnel(tunnel, tunnelState(tunnel), worst);
}

function ofTunnel(tunnel: Tunnel, state: State, detail: Trouble['detail']): Trouble {
  return { key: tunnel.id, subject: 'Tunnel', name: tunnel.name, page: 'tunnels', id: tunnel.id, state, detail, shares: [], filters: { ipsecTunnelId: tunnel.id, ready: 'false', enabled: 'true' } };
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

function unknownPeer(peer: Schemas['UnknownPeer']): Trouble {
  return {
    key: `peer ${peer.address} ${peer.port}`,
    subject: 'Unknown peer',
    name: peer.address,
    state: { tone: 'warn', word: 'Not answered' },
    detail: { message: `${counted(peer.packets, 'packet')} arrived at UDP port ${peer.port} of ${peer.locationId}, the last one ${ago(peer.lastSeenAt)}. No tunnel has the address as its peerPublicIp.`, since: peer.firstSeenAt },
    cure: "If it is a site's device, set peerPublicIp of its tunnel to this address. Addresses may be forged.",
    shares: [],
  };
}

const WEIGHT: Record<Tone, number> = { bad: 0, busy: 1, warn: 2, off: 3, ok: 4 };

/** By what it costs: not served before in doubt, many shares before few, then the newest. */
function worstFirst(a: Trouble, b: Trouble): number {
  return WEIGHT[a.state.tone] - WEIGHT[b.state.tone] || b.shares.length - a.shares.length || (b.detail.since ?? '').localeCompare(a.detail.since ?? '');
}
