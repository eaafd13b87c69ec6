// The Frontdoors that the session reaches, and the one on screen: the fragment names it, otherwise it is that of the last visit, or the first one.
import { list, type Failure, asFailure, type Frontdoor } from './client';
import { live } from './live.svelte';
import { route } from '../route.svelte';

const KEY = 'wicketgate.frontdoor';

class Frontdoors {
  /** The one that was on screen at the end of the last visit. */
  #last = stored();

  all = $state.raw<Frontdoor[]>([]);
  known = $state(false);
  failure = $state.raw<Failure | undefined>();

  /** The Frontdoor on screen. */
  get current(): Frontdoor | undefined {
    return this.all.find((each) => each.id === (route.frontdoor ?? this.#last)) ?? this.all[0];
  }

  /** Its id; empty until it is known. */
  get id(): string {
    return this.current?.id ?? '';
  }

  /** Whether the fragment names a Frontdoor that the session does not reach. */
  get missing(): boolean {
    return this.known && route.frontdoor !== undefined && !this.all.some((each) => each.id === route.frontdoor);
  }

  async read(): Promise<void> {
    try {
      this.all = (await list<Frontdoor>('/frontdoor/v2', { size: 1000, sort: 'defaultNamespaceName' })).content;
      this.failure = undefined;
      this.known = true;
    } catch (thrown) {
      this.failure = asFailure(thrown);
    }
  }

  /** What it is called: its name, and its organization where names are not unique. */
  title(frontdoor: Frontdoor): string {
    const name = frontdoor.defaultNamespaceName;
    const same = this.all.filter((each) => each.defaultNamespaceName === name);
    return same.length > 1 ? `${frontdoor.organizationId} / ${name}` : name;
  }

  /** Begins the next visit with the Frontdoor on screen. */
  remember(): void {
    try {
      if (this.current) localStorage.setItem(KEY, this.current.id);
    } catch {
      // Without storage, the first one is shown.
    }
  }

  forget(): void {
    this.all = [];
    this.known = false;
    live.follow('');
  }
}

export const frontdoors = new Frontdoors();

function stored(): string | undefined {
  try {
    return localStorage.getItem(KEY) ?? undefined;
  } catch {
    return undefined;
  }
}

/** `/frontdoor/v2/{id of the Frontdoor on screen}` followed by `path`. */
export function here(path: string): string {
  return `/frontdoor/v2/${frontdoors.id}${path}`;
}
