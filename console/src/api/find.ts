// Resources by a name, an id, an address, a target or a port, as an alert or a log has them.
import { agentState, environmentState, shareState, tunnelState, type State } from '../format';
import { list, type Agent, type Environment, type Query, type Share, type Tunnel } from './client';
import { here } from './frontdoors.svelte';
import { learn } from './names.svelte';

export type Hit = { page: 'tunnels' | 'shares' | 'environments' | 'agents'; word: string; id: string; name: string; state: State; detail: string };

/** Of one kind and one property, as many hits are shown. */
const MOST = 10;

/** What has the text as a whole value; the API compares no parts of values. */
export async function find(text: string): Promise<Hit[]> {
  const asked = text.trim();
  const hits = (await Promise.all(queries(asked).map((query) => query()))).flat();
  return hits.filter((hit, index) => hits.findIndex((other) => other.id === hit.id) === index);
}

function queries(text: string): (() => Promise<Hit[]>)[] {
  if (/^tnl-[0-9a-f]{32}$/.test(text)) return [() => tunnels({ id: text })];
  if (/^shr-[0-9a-f]{32}$/.test(text)) return [() => shares({ id: text })];
  if (/^env-[0-9a-f]{32}$/.test(text)) return [() => environments({ id: text })];
  if (/^agt-[0-9a-f]{32}$/.test(text)) return [() => agents({ id: text })];
  if (/^\d+(\.\d+){3}$/.test(text)) {
    return [
      () => tunnels({ peerPublicIp: text }),
      () => tunnels({ loadBalancerIp: text }),
      () => tunnels({ 'connection.peer.address': text }),
      () => agents({ address: text }),
    ];
  }
  // `100.64.0.1:9000` is a target, or a port of a load balancer.
  if (/:\d+$/.test(text)) return [() => shares({ target: text }), () => sharesAt(text)];
  if (/^\d{1,5}$/.test(text)) return [() => shares({ ingressPort: text }), () => named(text)];
  return [() => named(text)];
}

async function named(name: string): Promise<Hit[]> {
  const found = await Promise.all([tunnels({ name }), shares({ name }), environments({ name }), agents({ name }), ...(name.length === 10 ? [environments({ zId: name })] : [])]);
  return found.flat();
}

/** The share that clients of a site use at this address and port. */
async function sharesAt(text: string): Promise<Hit[]> {
  const [address, port] = text.split(':') as [string, string];
  if (!/^\d+(\.\d+){3}$/.test(address)) return [];
  const found = await tunnels({ loadBalancerIp: address });
  return (await Promise.all(found.map((tunnel) => shares({ ipsecTunnelId: tunnel.id, ingressPort: port })))).flat();
}

async function tunnels(query: Query): Promise<Hit[]> {
  return (await rows<Tunnel>('/ipsec-tunnels', query)).map((tunnel) => ({ page: 'tunnels', word: 'Tunnel', id: tunnel.id, name: tunnel.name, state: tunnelState(tunnel), detail: `${tunnel.peerPublicIp}, ${tunnel.loadBalancerIp}` }));
}

async function shares(query: Query): Promise<Hit[]> {
  return (await rows<Share>('/ipsec-shares', query)).map((share) => ({ page: 'shares', word: 'Share', id: share.id, name: share.name, state: shareState(share), detail: `port ${share.ingressPort}, ${share.target}` }));
}

async function environments(query: Query): Promise<Hit[]> {
  return (await rows<Environment>('/environments', query)).map((environment) => ({ page: 'environments', word: 'Environment', id: environment.zId, name: environment.name, state: environmentState(environment), detail: environment.zId }));
}

async function agents(query: Query): Promise<Hit[]> {
  return (await rows<Agent>('/agents', query)).map((agent) => ({ page: 'agents', word: 'Agent', id: agent.id, name: agent.name, state: agentState(agent), detail: agent.address ?? '' }));
}

async function rows<T extends { id: string; name: string }>(path: string, query: Query): Promise<T[]> {
  const found = (await list<T>(here(path), { ...(query as Record<string, string>), size: MOST })).content;
  learn(found);
  return found;
}
