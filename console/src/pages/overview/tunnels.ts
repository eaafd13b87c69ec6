// Faults of tunnels. Many tunnels with one fault are one entry: the gateway or its line is at fault then, not each site.
import type { Tunnel } from '../../api/client';
import { connectionState, counted, tunnelState, type State } from '../../format';
import type { Readings, Trouble } from './trouble';

/** So many tunnels with one fault are one entry. */
const ALIKE = 4;

/** The API admits 200 parameters in a query. */
const QUERY = 150;

/** What is known of a connection without an error, and what to do. */
const UNNAMED: Record<string, { message: string; cure: string }> = {
  DOWN: {
    message: "The site's device is not connected, and no error is known.",
    cure: 'Start the connection at the device. If it tries already, it has to send from peerPublicIp, and UDP 500 and 4500 have to pass both ways. If it sends from another address, that one is listed as an unknown peer.',
  },
  CONNECTING: { message: 'An IKE SA is being negotiated.', cure: 'Wait a few seconds. If it remains, read the IKE log of the tunnel.' },
  IDLE: { message: 'There is an IKE SA without a CHILD SA, so nothing passes.', cure: 'Start the CHILD SA at the device, with the networks of its configuration.' },
};

export function ofTunnels({ failedTunnels, downTunnels, upTunnels }: Readings): Trouble[] {
  const found = [
    ...failedTunnels.map((tunnel) => trouble(tunnel, tunnelState(tunnel), tunnel.statusDetail ?? { message: 'The tunnel is not in effect at the gateway.' })),
    // Without IPsec, a tunnel has no connection and is ready.
    ...downTunnels.filter((tunnel) => !tunnel.ready).map(down),
    ...upTunnels.flatMap(inDoubt),
  ];
  const groups = Map.groupBy(found, (each) => `${each.subject} ${each.state.word} ${each.detail.reason ?? each.detail.message}`);
  return [...groups].flatMap(([key, group]) => (group.length < ALIKE ? group : [together(key, group)]));
}

function down(tunnel: Tunnel): Trouble {
  const { state, lastError, since } = tunnel.connection!;
  if (lastError) return trouble(tunnel, connectionState(state), lastError);
  const { message, cure } = UNNAMED[state] ?? { message: 'The tunnel is not connected.', cure: 'Read the IKE log of the tunnel.' };
  return { ...trouble(tunnel, connectionState(state), { message, since }), cure: cure.replace('peerPublicIp', tunnel.peerPublicIp) };
}

function inDoubt(tunnel: Tunnel): Trouble[] {
  const warnings = tunnel.connection?.warnings ?? [];
  const worst = warnings.find((each) => each.reason === 'PeerSilent') ?? tunnel.connection?.lastError ?? warnings[0];
  return worst ? [trouble(tunnel, tunnelState(tunnel), worst)] : [];
}

function trouble(tunnel: Tunnel, state: State, detail: Trouble['detail']): Trouble {
  return {
    key: tunnel.id,
    of: [tunnel.id],
    subject: 'Tunnel',
    name: tunnel.name,
    page: 'tunnels',
    id: tunnel.id,
    state,
    detail,
    shares: [],
    filters: { ipsecTunnelId: tunnel.id, ready: 'false', enabled: 'true' },
  };
}

/** One entry for tunnels with the same fault. */
function together(key: string, group: Trouble[]): Trouble {
  const [first] = group as [Trouble];
  const reason = first.detail.reason;
  const same = group.every((each) => each.detail.message === first.detail.message);
  const since = group.map((each) => each.detail.since ?? '').filter(Boolean).sort()[0];
  const unnamed = Object.values(UNNAMED).find((each) => each.message === first.detail.message);
  return {
    key,
    of: group.flatMap((each) => each.of),
    subject: 'Tunnels',
    name: counted(group.length, 'tunnel'),
    state: first.state,
    detail: { ...(reason ? { reason } : {}), message: same ? first.detail.message : `${first.name}: ${first.detail.message}`, ...(since ? { since } : {}) },
    ...(unnamed ? { cure: unnamed.cure } : {}),
    tunnels: group.map(({ id, name }) => ({ id: id!, name })),
    shares: [],
    filters: { ipsecTunnelId: group.slice(0, QUERY).map((each) => each.id!), ready: 'false', enabled: 'true' },
  };
}
