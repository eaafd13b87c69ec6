// Names for ids: looked up in batches when something on screen needs them, and kept.
import { SvelteMap } from 'svelte/reactivity';
import { here } from './frontdoors.svelte';
import { listInBackground } from './client';

type Named = { id?: string; zId?: string; clientId?: string; name: string };

/** Deleted ones have a name for 30 days; a list has them only if it is asked for their status. */
const ALL = { status: ['NEW', 'DEPLOYED', 'ERROR', 'DISABLED', 'DELETING', 'DELETED'] };

/** How the list of each kind is asked for several ids. */
const KINDS = {
  tunnel: { path: () => here('/ipsec-tunnels'), key: 'id', query: ALL },
  share: { path: () => here('/ipsec-shares'), key: 'id', query: ALL },
  environment: { path: () => here('/environments'), key: 'zId', query: {} },
  environmentId: { path: () => here('/environments'), key: 'id', query: {} },
  agent: { path: () => here('/agents'), key: 'id', query: {} },
  account: { path: () => '/frontdoor/v2/api-accounts', key: 'clientId', query: {} },
} as const;

export type NamedKind = keyof typeof KINDS;

/** The API admits 200 parameters in a query. */
const BATCH = 150;

const known = new SvelteMap<string, string>();
const asked = new Set<string>();
const waiting = new Map<NamedKind, Set<string>>();
let planned = false;

/** The name of a resource, or undefined until it is known; asks for it the first time. */
export function nameOf(kind: NamedKind, id: string | undefined): string | undefined {
  if (!id) return undefined;
  const found = known.get(id);
  if (found !== undefined || asked.has(id)) return found;
  asked.add(id);
  if (!waiting.has(kind)) waiting.set(kind, new Set());
  waiting.get(kind)!.add(id);
  if (!planned) {
    planned = true;
    setTimeout(() => void look(), 10);
  }
  return undefined;
}

/** Keeps the names of resources that were read anyway. */
export function learn(resources: Named[]): void {
  for (const each of resources) {
    for (const id of [each.id, each.zId, each.clientId]) {
      if (!id || known.get(id) === each.name) continue;
      asked.add(id);
      known.set(id, each.name);
    }
  }
}

async function look(): Promise<void> {
  planned = false;
  const work = [...waiting];
  waiting.clear();
  for (const [kind, ids] of work) {
    const { path, key, query } = KINDS[kind];
    const all = [...ids];
    for (let start = 0; start < all.length; start += BATCH) {
      const batch = all.slice(start, start + BATCH);
      try {
        learn((await listInBackground<Named>(path(), { ...query, [key]: batch, size: BATCH })).content);
      } catch {
        // The id stands for the name; the next page that needs it asks again.
        for (const id of batch) asked.delete(id);
      }
    }
  }
}
