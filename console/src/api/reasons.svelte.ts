// Cause and cure of a reason, as the server's own pages have them; read once each.
import { SvelteMap } from 'svelte/reactivity';
import { base } from './client';

/** `property` is where the API shows the reason: `statusDetail.reason`, `lastError.reason`, … */
export type Explanation = { property: string; summary: string; cause: string; cure: string };

const known = new SvelteMap<string, Explanation>();
const asked = new Set<string>();

/** What the server says about a reason; undefined until it is read. */
export function explanation(reason: string): Explanation | undefined {
  if (!asked.has(reason)) {
    asked.add(reason);
    void read(reason);
  }
  return known.get(reason);
}

/** The cure to show below a message: messages of a connection, and those with a colon, say themselves what to do. */
export function cureOf(known: Explanation, message: string): string | undefined {
  return known.property === 'statusDetail.reason' && !known.cure.startsWith('None') && !message.includes(': ') ? known.cure : undefined;
}

async function read(reason: string): Promise<void> {
  try {
    const response = await fetch(`${base}/docs/reasons/${encodeURIComponent(reason)}`, { headers: { Accept: 'text/plain' } });
    if (!response.ok) return;
    const text = await response.text();
    const line = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(text)?.[1] ?? '';
    known.set(reason, {
      property: /^\S+ \((.*)\)$/m.exec(text)?.[1] ?? '',
      summary: text.split('\n')[2] ?? '',
      cause: line('Cause'),
      cure: line('Cure'),
    });
  } catch {
    // The link to the page remains.
    asked.delete(reason);
  }
}
