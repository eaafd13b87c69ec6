// What the forms of shares and tunnels edit: text as it is typed, and the API's properties that it becomes.
import type { Share, Tunnel } from '../api/client';

export interface ShareDraft {
  name: string;
  description: string;
  ipsecTunnelId: string;
  envZId: string;
  target: string;
  ingressPort: string;
  allowedSources: string;
  maxConnections: string;
  idleTimeoutSeconds: string;
  healthCheck: 'default' | 'tcp' | 'none';
  intervalSeconds: string;
  proxyProtocol: boolean;
  closeWhenUnserved: boolean;
  /** As `datetime-local` has it: without a zone, in the browser's. */
  expiresAt: string;
  tags: string;
}

export interface TunnelDraft {
  name: string;
  description: string;
  locationId: string;
  peerPublicIp: string;
  peerCidr: string;
  peerId: string;
  loadBalancerIp: string;
  initiate: boolean;
  ikeProposals: string;
  espProposals: string;
  tags: string;
}

export type Body = Record<string, unknown>;

export function shareDraft(share?: Share): ShareDraft {
  return {
    name: share?.name ?? '',
    description: share?.description ?? '',
    ipsecTunnelId: share?.ipsecTunnelId ?? '',
    envZId: share?.envZId ?? '',
    target: share?.target ?? '',
    ingressPort: share ? String(share.ingressPort) : '',
    allowedSources: (share?.allowedSources ?? []).join('\n'),
    maxConnections: numeral(share?.maxConnections),
    idleTimeoutSeconds: numeral(share?.idleTimeoutSeconds),
    healthCheck: share?.healthCheck?.type ?? 'default',
    intervalSeconds: numeral(share?.healthCheck?.intervalSeconds),
    proxyProtocol: share?.proxyProtocol === 'v2',
    closeWhenUnserved: share?.closeWhenUnserved ?? false,
    expiresAt: localTime(share?.expiresAt),
    tags: tagLines(share?.tags),
  };
}

/** The properties of a share. `null` means that the share has none. */
export function shareBody(draft: ShareDraft, before?: Share): Body {
  const sources = words(draft.allowedSources);
  const interval = integer(draft.intervalSeconds);
  const check = draft.healthCheck === 'default' ? null : draft.healthCheck === 'none' || interval === null ? { type: draft.healthCheck } : { type: 'tcp', intervalSeconds: interval };
  return {
    name: draft.name.trim(),
    description: draft.description.trim() || null,
    ipsecTunnelId: draft.ipsecTunnelId,
    envZId: draft.envZId,
    target: draft.target.trim(),
    ingressPort: integer(draft.ingressPort),
    allowedSources: sources.length > 0 ? sources : null,
    maxConnections: integer(draft.maxConnections),
    idleTimeoutSeconds: integer(draft.idleTimeoutSeconds),
    healthCheck: check,
    proxyProtocol: draft.proxyProtocol ? 'v2' : null,
    closeWhenUnserved: draft.closeWhenUnserved,
    // The input has whole minutes; a time that was not touched stays as it is.
    expiresAt: draft.expiresAt === localTime(before?.expiresAt) ? (before?.expiresAt ?? null) : draft.expiresAt === '' ? null : new Date(draft.expiresAt).toISOString(),
    tags: tagsOf(draft.tags),
  };
}

export function tunnelDraft(tunnel?: Tunnel): TunnelDraft {
  return {
    name: tunnel?.name ?? '',
    description: tunnel?.description ?? '',
    locationId: tunnel?.locationId ?? '',
    peerPublicIp: tunnel?.peerPublicIp ?? '',
    peerCidr: tunnel?.peerCidr ?? '',
    peerId: tunnel && tunnel.peerId !== tunnel.peerPublicIp ? tunnel.peerId : '',
    loadBalancerIp: tunnel?.loadBalancerIp ?? '',
    initiate: tunnel?.initiate ?? false,
    ikeProposals: (tunnel?.ikeProposals ?? []).join('\n'),
    espProposals: (tunnel?.espProposals ?? []).join('\n'),
    tags: tagLines(tunnel?.tags),
  };
}

/** The properties of a tunnel. An empty identity is the address, and an empty load balancer is chosen by the server. */
export function tunnelBody(draft: TunnelDraft, before?: Tunnel): Body {
  const ike = words(draft.ikeProposals);
  const esp = words(draft.espProposals);
  const address = draft.peerPublicIp.trim();
  return {
    name: draft.name.trim(),
    description: draft.description.trim() || null,
    locationId: draft.locationId,
    peerPublicIp: address,
    peerCidr: draft.peerCidr.trim(),
    peerId: draft.peerId.trim() || (before ? address : null),
    loadBalancerIp: draft.loadBalancerIp.trim() || (before?.loadBalancerIp ?? null),
    initiate: draft.initiate,
    ikeProposals: ike.length > 0 ? ike : null,
    espProposals: esp.length > 0 ? esp : null,
    tags: tagsOf(draft.tags),
  };
}

/** A body for a POST: properties that are absent are left out. */
export function created(body: Body): Body {
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
}

function words(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '');
}

/** Text that is no number is sent as it is, so that the API names the fault. */
function integer(text: string): number | string | null {
  const trimmed = text.trim();
  if (trimmed === '') return null;
  return /^\d+$/.test(trimmed) ? Number(trimmed) : trimmed;
}

function numeral(value: number | undefined): string {
  return value === undefined ? '' : String(value);
}

function localTime(at: string | undefined): string {
  if (!at) return '';
  const date = new Date(at);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function tagLines(tags: object | undefined): string {
  return Object.entries(tags ?? {}).map(([key, value]) => `${key}=${String(value)}`).join('\n');
}

function tagsOf(text: string): Record<string, string> | null {
  const lines = text.split('\n').map((line) => line.trim()).filter((line) => line !== '');
  if (lines.length === 0) return null;
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf('=');
    return at < 0 ? [line, ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  }));
}
