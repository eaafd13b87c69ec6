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

const WORDS = 'abcdefghjkmnpqrstuvwxyz23456789';

/** A passphrase that can be read aloud: four groups of four characters, about 79 bits. */
export function passphrase(): string {
  const random = crypto.getRandomValues(new Uint32Array(16));
  // The remainder favours no character noticeably: 2^32 is much larger than the alphabet.
  const letters = [...random].map((value) => WORDS[value % WORDS.length]);
  return [0, 4, 8, 12].map((start) => letters.slice(start, start + 4).join('')).join('-');
}
