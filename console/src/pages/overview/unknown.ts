// Who comes to the gateways and is not known: addresses of no tunnel, and agents that are not in the database.
import type { UnknownAgent, UnknownPeer } from '../../api/client';
import { ago, counted } from '../../format';
import type { Trouble } from './trouble';

/** Unknown peers that are listed; a scan from the internet may cause many. */
const PEERS = 3;

export function ofUnknownPeers(peers: UnknownPeer[]): Trouble[] {
  return peers.slice(0, PEERS).map(unknownPeer);
}

function unknownPeer(peer: UnknownPeer): Trouble {
  return {
    key: `peer ${peer.address} ${peer.port}`,
    of: [],
    subject: 'Unknown peer',
    name: peer.address,
    state: { tone: 'warn', word: 'Not answered' },
    detail: { message: `${counted(peer.packets, 'packet')} arrived at UDP port ${peer.port} of ${peer.locationId}, the last one ${ago(peer.lastSeenAt)}. No tunnel has the address as its peerPublicIp.`, since: peer.firstSeenAt },
    cure: "If it is a site's device, set peerPublicIp of its tunnel to this address. Addresses may be forged.",
    shares: [],
  };
}

/** One entry for all: after a restore, there may be many. */
export function ofUnknownAgents(agents: UnknownAgent[]): Trouble[] {
  if (agents.length === 0) return [];
  const since = agents.map((each) => each.firstSeenAt).sort()[0]!;
  return [
    {
      key: 'unknown agents',
      of: [],
      subject: agents.length === 1 ? 'Unknown agent' : 'Unknown agents',
      name: agents.length === 1 ? agents[0]!.name : `${counted(agents.length, 'unknown agent')}`,
      page: 'unknown-agents',
      state: { tone: 'warn', word: 'Refused' },
      detail: { message: `The database does not know ${agents.length === 1 ? 'it' : 'them'}, although the certificate is of this installation. So it is after a restore, of agents that enrolled after the backup.`, since },
      cure: 'If a backup was restored, adopt those that you know. Otherwise, treat the key of the authority as stolen.',
      shares: [],
    },
  ];
}
