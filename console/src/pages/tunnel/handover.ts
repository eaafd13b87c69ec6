// Handover links, as the API has them.

export interface HandoverLink {
  id: string;
  description?: string;
  createdAt: string;
  createdBy: string;
  expiresAt: string;
  maxUses: number;
  uses: number;
  hasPassphrase: boolean;
  lastUsedAt?: string;
  revokedAt?: string;
  state: 'ACTIVE' | 'EXPIRED' | 'USED_UP' | 'REVOKED';
}

/** Only the answer to the creation has these. */
export interface NewHandoverLink extends HandoverLink {
  token: string;
  url: string;
}

/** How long a link may be used, for a choice. */
export const LIFETIMES = [
  { hours: 24, title: '1 day' },
  { hours: 24 * 7, title: '7 days' },
  { hours: 24 * 30, title: '30 days' },
];

/** Pages that were opened with a link go on after its last use. */
const IN_EFFECT: HandoverLink['state'][] = ['ACTIVE', 'USED_UP'];

export function isInEffect({ state }: Pick<HandoverLink, 'state'>): boolean {
  return IN_EFFECT.includes(state);
}

/** What replacing the key of the tunnel does to its links; undefined if it ends none. */
export function endedWithKey(links: Pick<HandoverLink, 'state'>[]): string | undefined {
  const ended = links.filter(isInEffect).length;
  if (ended === 0) return undefined;
  return ended === 1 ? '1 handover link of this tunnel ends, with the pages that it has opened.' : `${ended} handover links of this tunnel end, with the pages that they have opened.`;
}

/** Whether only this host reaches an address. */
export function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' || /^127\./.test(hostname);
}

const WORDS = 'abcdefghjkmnpqrstuvwxyz23456789';

/** A passphrase that can be read aloud: four groups of four characters, about 79 bits. */
export function passphrase(): string {
  const random = crypto.getRandomValues(new Uint32Array(16));
  // The remainder favours no character noticeably: 2^32 is much larger than the alphabet.
  const letters = [...random].map((value) => WORDS[value % WORDS.length]);
  return [0, 4, 8, 12].map((start) => letters.slice(start, start + 4).join('')).join('-');
}
