// What a change of a share or tunnel does to those who use it, before it is written. The same sentences as the plan of
// `wicketgate apply`; crates/cli/src/apply/effect.rs has them for the command line.
import type { Share, Tunnel } from '../api/client';
import { counted } from '../format';

export type Effect = 'CUTS' | 'LATER' | 'NOTICED' | 'QUIET';

export interface Change {
  property: string;
  before: string;
  after: string;
  effect: Effect;
  says: string;
  /** The site's device needs the new configuration. */
  reconfigures: boolean;
}

type Rule = { effect: Effect; says?: string; reconfigures?: boolean };

const NEW_ONLY: Rule = { effect: 'NOTICED', says: 'Applies to new connections; open ones continue.' };
const ALGORITHMS = "Ends the tunnel's connection if it uses an algorithm that is no longer allowed.";

const SHARE: Record<string, Rule> = {
  name: { effect: 'QUIET' },
  description: { effect: 'QUIET' },
  tags: { effect: 'QUIET' },
  healthCheck: { effect: 'QUIET' },
  ipsecTunnelId: { effect: 'NOTICED', says: "Clients have to use the other tunnel's address; open connections continue." },
  ingressPort: { effect: 'NOTICED', says: 'Clients have to use the new port; open connections continue.' },
  envZId: NEW_ONLY,
  target: NEW_ONLY,
  allowedSources: NEW_ONLY,
  maxConnections: NEW_ONLY,
  idleTimeoutSeconds: NEW_ONLY,
  proxyProtocol: { effect: 'NOTICED', says: 'Applies to new connections; open ones continue. The target has to expect the header, or has to expect none.' },
  closeWhenUnserved: { effect: 'NOTICED', says: 'If true, the port is closed while no agent can serve the share.' },
  expiresAt: { effect: 'LATER', says: 'Open connections are reset, and the port is closed, at that time.' },
};

const TUNNEL: Record<string, Rule> = {
  name: { effect: 'QUIET' },
  description: { effect: 'QUIET' },
  tags: { effect: 'QUIET' },
  initiate: { effect: 'QUIET', says: 'An established connection continues.' },
  peerPublicIp: { effect: 'CUTS', reconfigures: true, says: "Ends the tunnel's connection; the site has to connect from the new address." },
  peerId: { effect: 'CUTS', reconfigures: true, says: "Ends the tunnel's connection; the device has to have the new identity." },
  peerCidr: { effect: 'CUTS', reconfigures: true, says: "Ends the tunnel's connection; the device has to have the new network." },
  loadBalancerIp: { effect: 'CUTS', reconfigures: true, says: "Ends the tunnel's connection; the site's hosts have to use the new address." },
  ikeProposals: { effect: 'NOTICED', says: ALGORITHMS },
  espProposals: { effect: 'NOTICED', says: ALGORITHMS },
};

/** What a PATCH of a share changes, property by property. */
export function shareChanges(before: Share, patch: Record<string, unknown>): Change[] {
  return changes(before, patch, SHARE);
}

/** What a PATCH of a tunnel changes. Whether new proposals end the connection is decided by the algorithms in use. */
export function tunnelChanges(before: Tunnel, patch: Record<string, unknown>): Change[] {
  return changes(before, patch, TUNNEL).map((change) => withAlgorithms(before, patch, change));
}

function changes(before: object, patch: Record<string, unknown>, rules: Record<string, Rule>): Change[] {
  return Object.entries(patch).map(([property, after]) => {
    const rule = rules[property] ?? NEW_ONLY;
    return {
      property,
      before: shown((before as Record<string, unknown>)[property]),
      after: shown(after),
      effect: rule.effect,
      says: rule.says ?? '',
      reconfigures: rule.reconfigures ?? false,
    };
  });
}

function withAlgorithms(before: Tunnel, patch: Record<string, unknown>, change: Change): Change {
  const kind = change.property === 'ikeProposals' ? 'ike' : change.property === 'espProposals' ? 'esp' : undefined;
  const used = kind && before.connection.algorithms?.[kind];
  const allowed = patch[change.property];
  if (!kind || !used) return change;
  if (!Array.isArray(allowed)) return { ...change, says: 'The connection continues if its algorithms are among the defaults.' };
  const proposal = proposalOf(used);
  const permitted = allowed.some((one: string) => one === proposal || (kind === 'esp' && one.startsWith(`${proposal}-`)));
  return permitted
    ? { ...change, effect: 'QUIET', says: `The connection uses ${proposal}, which is still allowed, and continues.` }
    : { ...change, effect: 'CUTS', reconfigures: true, says: `Ends the tunnel's connection: it uses ${proposal}, which is no longer allowed.` };
}

/** strongSwan's report of algorithms, such as `AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384`, as a proposal. */
export function proposalOf(algorithms: string): string {
  const parts = algorithms.split('/').map((part) => {
    const gcm = /^AES_GCM_16-(\d+)$/.exec(part);
    if (gcm) return `aes${gcm[1]}gcm16`;
    const cbc = /^AES_CBC-(\d+)$/.exec(part);
    if (cbc) return `aes${cbc[1]}`;
    const prf = /^PRF_HMAC_SHA2_(\d+)$/.exec(part);
    if (prf) return `prfsha${prf[1]}`;
    const hash = /^HMAC_SHA2_(\d+)_\d+$/.exec(part);
    if (hash) return `sha${hash[1]}`;
    const group = /^(ECP|MODP)_(\d+)$/.exec(part);
    if (group) return `${group[1]!.toLowerCase()}${group[2]}`;
    return part === 'CURVE_25519' ? 'x25519' : part.toLowerCase();
  });
  // Without GCM, the pseudo-random function is that of the hash and is not part of a proposal.
  const isGcm = parts[0]?.endsWith('gcm16');
  return parts.filter((part) => isGcm || !part.startsWith('prf')).join('-');
}

/** The button's words: what is cut stands where it is confirmed. `open` is undefined if it is unknown. */
export function saveLabel(changes: Change[], open: number | undefined): string {
  if (open === 0 || !changes.some((change) => change.effect === 'CUTS')) return 'Save changes';
  return open === undefined ? 'Save and cut the open connections' : `Save and cut ${counted(open, 'connection')}`;
}

/** A value of a property for people. */
export function shown(value: unknown): string {
  if (value === undefined || value === null || value === '') return '(none)';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value)) return value.length === 0 ? '(none)' : value.join(', ');
  if (typeof value === 'object') {
    const entries = Object.entries(value).filter(([, one]) => one !== undefined && one !== null);
    return entries.length === 0 ? '(none)' : entries.map(([key, one]) => `${key} ${one}`).join(', ');
  }
  return String(value);
}

/** The properties of `draft` that differ from `before`, as a merge patch: what was removed is `null`. */
export function patchOf(before: object, draft: Record<string, unknown>): Record<string, unknown> {
  const patch: Record<string, unknown> = {};
  for (const [property, after] of Object.entries(draft)) {
    const was = (before as Record<string, unknown>)[property];
    if (shown(was) === shown(after)) continue;
    const isMerged = isObject(was) && isObject(after);
    patch[property] = isMerged ? { ...nulls(was), ...after } : (after ?? null);
  }
  return patch;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A merge patch removes a property of an object, such as a tag, only if it names it with `null`. */
function nulls(properties: object): Record<string, null> {
  return Object.fromEntries(Object.keys(properties).map((key) => [key, null]));
}
