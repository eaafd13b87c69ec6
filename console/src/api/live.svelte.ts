// Changes as they happen: one event stream for the Frontdoor on screen, and which rows changed a moment ago.
import { SvelteMap } from 'svelte/reactivity';
import { BACKGROUND } from './background';
import { base } from './client';
import { session } from './session.svelte';

export type EventType = 'ipsec-share' | 'ipsec-tunnel' | 'environment' | 'connection';
export type Change = { type: EventType; id: string; status?: string; statusDetail?: { reason?: string; message?: string }; at: string };
/** A change, or `reset`: events are missing, and what is shown must be read again. */
export type Listener = (change: Change | 'reset') => void;

const TYPES: EventType[] = ['ipsec-share', 'ipsec-tunnel', 'environment', 'connection'];
/** How long a changed row stays marked. */
const MARKED_MS = 4000;
/** A burst of changes marks no more rows than a page can show. */
const MARKED_MAX = 1000;
const RETRY_MS = 3000;
/** A tab in the background gives its stream back after this time: servers and browsers have few. */
const HIDDEN_MS = 60_000;

class Live {
  /** `lost`: there is no stream, and what is shown may be old. */
  state = $state<'closed' | 'connecting' | 'open' | 'lost'>('closed');
  /** When the stream last carried or lost something. */
  since = $state(new Date());
  /** Ids that changed a moment ago. */
  changed = new SvelteMap<string, number>();

  #frontdoor = '';
  #source: EventSource | undefined;
  #listeners = new Set<Listener>();
  #retry: ReturnType<typeof setTimeout> | undefined;
  #opened = false;
  #hidden: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    document.addEventListener('visibilitychange', () => this.#seen(!document.hidden));
  }

  /** Follows another Frontdoor; none ends the stream. */
  follow(frontdoor: string): void {
    if (frontdoor === this.#frontdoor && this.#source) return;
    this.#close();
    this.#frontdoor = frontdoor;
    this.#opened = false;
    this.changed.clear();
    if (frontdoor) this.#open();
    else this.#enter('closed');
  }

  /** Calls `listener` for every change until the returned function is called. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Ends the stream of a tab in the background, and opens another one when the tab is seen again. */
  #seen(visible: boolean): void {
    clearTimeout(this.#hidden);
    if (!visible) {
      this.#hidden = setTimeout(() => this.#close(), HIDDEN_MS);
    } else if (this.#frontdoor && !this.#source) {
      this.#close();
      this.#open();
    }
  }

  #open(): void {
    this.#enter(this.#opened ? 'lost' : 'connecting');
    const source = new EventSource(`${base}/frontdoor/v2/${this.#frontdoor}/events`);
    this.#source = source;
    source.onopen = () => {
      // A stream that the browser resumed has the missed events; another one after it does not.
      if (this.#opened) this.#tell('reset');
      this.#opened = true;
      this.#enter('open');
    };
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) {
        this.#enter('lost');
        return;
      }
      this.#close();
      this.#enter('lost');
      this.#retry = setTimeout(() => void this.#again(), RETRY_MS);
    };
    for (const type of TYPES) {
      source.addEventListener(type, (event) => this.#change(type, (event as MessageEvent<string>).data));
    }
    source.addEventListener('reset', () => this.#tell('reset'));
  }

  /** The browser gave up: the session may have ended. Opens another stream once there is one. */
  async #again(): Promise<void> {
    const token = session.current?.csrfToken;
    const response = await fetch(`${base}/console/session`, { headers: BACKGROUND }).catch(() => undefined);
    if (response?.status === 401 && !(await session.renew(token))) return;
    if (this.#frontdoor && !this.#source) this.#open();
  }

  #close(): void {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = undefined;
  }

  #enter(state: Live['state']): void {
    if (this.state === state) return;
    this.state = state;
    this.since = new Date();
  }

  #change(type: EventType, data: string): void {
    let change: Change;
    try {
      change = { ...(JSON.parse(data) as Change), type };
    } catch {
      return;
    }
    if (this.changed.size < MARKED_MAX) {
      const at = Date.now();
      this.changed.set(change.id, at);
      setTimeout(() => this.changed.get(change.id) === at && this.changed.delete(change.id), MARKED_MS);
    }
    this.#tell(change);
  }

  #tell(change: Change | 'reset'): void {
    for (const listener of this.#listeners) listener(change);
  }
}

export const live = new Live();
