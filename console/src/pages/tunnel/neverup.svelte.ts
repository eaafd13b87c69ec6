// Whether the device of a tunnel has never been connected, which the history of its connection tells.
import { list, type Schemas } from '../../api/client';
import { loaded } from '../../api/loaded.svelte';
import { wasNeverUp } from './history';

/** Changes that the server keeps. */
const KEPT = 100;

/** Call it while a component is created. `yes` is false until it is known. */
export function neverUp(frontdoor: string, id: () => string | undefined): { readonly yes: boolean } {
  const history = loaded(
    async (signal) => {
      const of = id();
      if (!of) return { of, yes: false };
      const { content, totalElements } = await list<Schemas['ConnectionChange']>(`/frontdoor/v2/${frontdoor}/ipsec-tunnels/${of}/connection-history`, { sort: 'number,desc', size: KEPT }, signal);
      return { of, yes: totalElements === content.length && wasNeverUp(content) };
    },
    { on: ['connection'], when: (change) => change.id === id() },
  );
  return { get yes() { return history.data !== undefined && history.data.of === id() && history.data.yes; } };
}
