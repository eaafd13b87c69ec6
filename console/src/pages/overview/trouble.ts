// A cause of what is wrong now, and what it is found from.
import type { Environment, Schemas, Share, Tunnel, UnknownAgent, UnknownPeer } from '../../api/client';
import type { State } from '../../format';
import type { Parameters } from '../../route.svelte';

export type Trouble = {
  key: string;
  /** Ids of the tunnels and environments that fail: their shares belong to it. */
  of: string[];
  /** The word for what it is about. */
  subject: 'Server' | 'Tunnel' | 'Tunnels' | 'Environment' | 'Agent' | 'Share' | 'Target' | 'Shares' | 'Location' | 'Unknown peer' | 'Unknown agent' | 'Unknown agents';
  name: string;
  /** The page of the resource; without an id, that of a list. */
  page?: 'tunnels' | 'environments' | 'agents' | 'shares' | 'unknown-agents';
  id?: string;
  /** The environment of a target. */
  envZId?: string;
  state: State;
  detail: { reason?: string; message: string; since?: string };
  /** What to do, if neither the message nor the reason's page says it. */
  cure?: string;
  /** Several tunnels with one fault. */
  tunnels?: { id: string; name: string }[];
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
  unknownPeers: UnknownPeer[];
  unknownAgents: UnknownAgent[];
};
