// The calls that the overview needs: what is not well, and counts of the rest.
import { base, list, request, type Environment, type Execution, type Installation, type Location, type Page, type Schemas, type Share, type Tunnel, type UnknownAgent, type UnknownPeer } from '../../api/client';
import { here } from '../../api/frontdoors.svelte';
import { learn } from '../../api/names.svelte';
import { session } from '../../api/session.svelte';
import type { Readings } from './trouble';

/** No more rows of one kind are read; beyond, the lists say more. */
const ROWS = 200;
const CHANGES = 8;

export type Overview = Readings & {
  tunnels: { all: number; up: number; disabled: number };
  sharesTotal: { all: number; ready: number; disabled: number };
  agents: { all: number; connected: number };
  environmentsTotal: number;
  locations: (Location & { tunnels: number })[];
  executions: Execution[];
  /** The operator's. */
  installation: Installation | undefined;
  /** Whether there are more faults than were read. */
  more: boolean;
};

export const SHARES_READ = ROWS;

export async function readOverview(signal: AbortSignal): Promise<Overview> {
  const of = <T>(path: string, query: Record<string, string | number | string[]>) => list<T>(here(path), query, signal);
  const total = async (path: string, query: Record<string, string | string[]> = {}) => (await of<unknown>(path, { ...query, size: 1 })).totalElements;
  const [failed, down, up, environments, shares, locations, executions, readiness, unknownPeers, unknownAgents, installation, tunnelsAll, tunnelsOff, sharesAll, sharesReady, sharesOff, agentsAll, agentsConnected] =
    await Promise.all([
      of<Tunnel>('/ipsec-tunnels', { status: 'ERROR', size: ROWS }),
      of<Tunnel>('/ipsec-tunnels', { status: ['DEPLOYED', 'NEW'], 'connection.state': ['DOWN', 'IDLE', 'CONNECTING'], size: ROWS }),
      of<Tunnel>('/ipsec-tunnels', { 'connection.state': 'UP', status: ['DEPLOYED', 'NEW'], sort: 'connection.since,desc', size: ROWS }),
      of<Environment>('/environments', { size: ROWS }),
      of<Share>('/ipsec-shares', { ready: 'false', status: ['DEPLOYED', 'ERROR'], size: ROWS }),
      of<Location>('/locations', { size: 100 }),
      of<Execution>('/executions', { sort: 'createdAt,desc', size: CHANGES }),
      readReadiness(signal),
      readUnknown<UnknownPeer>('peers', signal),
      readUnknown<UnknownAgent>('agents', signal),
      readInstallation(signal),
      total('/ipsec-tunnels'),
      total('/ipsec-tunnels', { enabled: 'false' }),
      total('/ipsec-shares'),
      total('/ipsec-shares', { ready: 'true' }),
      total('/ipsec-shares', { status: 'DISABLED' }),
      total('/agents'),
      total('/agents', { status: 'CONNECTED' }),
    ]);
  for (const page of [failed, down, up, environments, shares] as Page<{ id: string; name: string }>[]) learn(page.content);
  const counts = await Promise.all(locations.content.map((location) => total('/ipsec-tunnels', { locationId: location.id })));
  return {
    readiness,
    failedTunnels: failed.content,
    downTunnels: down.content,
    upTunnels: up.content,
    environments: environments.content,
    shares: shares.content,
    unknownPeers,
    unknownAgents,
    installation,
    tunnels: { all: tunnelsAll, up: readiness?.esp === 'off' ? tunnelsAll - tunnelsOff - failed.totalElements : up.totalElements, disabled: tunnelsOff },
    sharesTotal: { all: sharesAll, ready: sharesReady, disabled: sharesOff },
    agents: { all: agentsAll, connected: agentsConnected },
    environmentsTotal: environments.totalElements,
    locations: locations.content.map((location, index) => ({ ...location, tunnels: counts[index]! })),
    executions: executions.content,
    more: [failed, down, shares].some((page) => page.totalPages > 1),
  };
}

/** Whether the server itself is ready; it says so without a session, and a proxy may keep it to itself. */
async function readReadiness(signal: AbortSignal): Promise<Schemas['Readiness'] | undefined> {
  const response = await fetch(`${base}/readyz`, { headers: { Accept: 'application/json' }, signal });
  return response.status === 200 || response.status === 503 ? ((await response.json().catch(() => undefined)) as Schemas['Readiness'] | undefined) : undefined;
}

/** What may belong to any organization, so that only the operator sees it. */
async function readUnknown<T>(what: 'peers' | 'agents', signal: AbortSignal): Promise<T[]> {
  return session.operates ? (await list<T>(`/frontdoor/v2/unknown-${what}`, { size: 20 }, signal)).content : [];
}

async function readInstallation(signal: AbortSignal): Promise<Installation | undefined> {
  return session.operates ? request<Installation>('GET', '/frontdoor/v2/installation', { signal }) : undefined;
}
