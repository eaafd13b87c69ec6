// One visit of the page: the link's token becomes a session, and the tunnel is read every two seconds while the tab is visible.
// The token is in the fragment only until it is read here; the session is in the tab's storage, so that a reload counts no use.
import { asError, open, tunnel, type SiteError, type SiteSession, type SiteTunnel } from './client';

const KEY = 'wicketgate.site';
const EVERY_MS = 2000;

export type Phase = 'opening' | 'passphrase' | 'open' | 'ended' | 'without-link';

export class Visit {
  phase = $state<Phase>('opening');
  tunnel = $state.raw<SiteTunnel>();
  /** Why the last call failed; calls go on. */
  problem = $state.raw<SiteError>();
  busy = $state(false);
  expiresAt = $state<string>();
  /** When the tunnel is read again, in milliseconds since 1970. */
  readAgainAt = $state(0);
  session = '';
  #token = '';
  #timer: ReturnType<typeof setTimeout> | undefined;
  #reading = false;
  /** Counts openings: an answer of an earlier one is dropped. */
  #turn = 0;

  /** Begins, and returns what ends it. */
  start(): () => void {
    const begin = () => this.#begin();
    const look = () => this.#schedule();
    addEventListener('hashchange', begin);
    document.addEventListener('visibilitychange', look);
    this.#begin();
    return () => {
      removeEventListener('hashchange', begin);
      document.removeEventListener('visibilitychange', look);
      clearTimeout(this.#timer);
    };
  }

  #begin(): void {
    const token = location.hash.slice(1);
    if (token) {
      history.replaceState(null, '', location.pathname + location.search);
      this.#reset();
      this.#token = token;
      void this.enter();
      return;
    }
    if (this.phase !== 'opening') return;
    const kept = stored();
    if (kept) this.#enterWith(kept);
    else this.phase = 'without-link';
  }

  #reset(): void {
    this.#turn += 1;
    this.#reading = false;
    clearTimeout(this.#timer);
    forget();
    this.session = '';
    this.tunnel = this.problem = this.expiresAt = undefined;
    this.phase = 'opening';
  }

  /** Opens the link. It counts a use only if it succeeds. */
  async enter(passphrase?: string): Promise<void> {
    const turn = this.#turn;
    this.busy = true;
    this.problem = undefined;
    try {
      const opened = await open(this.#token, passphrase);
      if (turn !== this.#turn) return;
      keep(opened);
      this.#token = '';
      this.#enterWith(opened);
    } catch (caught) {
      if (turn !== this.#turn) return;
      const error = asError(caught);
      if (error.code === 'passphrase_required') this.phase = 'passphrase';
      else if (error.code === 'link_invalid') this.end();
      else this.problem = error;
    } finally {
      if (turn === this.#turn) this.busy = false;
    }
  }

  #enterWith(opened: SiteSession): void {
    this.session = opened.session;
    this.expiresAt = opened.expiresAt;
    this.phase = 'open';
    void this.#read();
  }

  /** The link has ended, and the page with it: nothing of the key is left on it. */
  end(): void {
    this.#reset();
    this.phase = 'ended';
  }

  async #read(): Promise<void> {
    if (this.phase !== 'open') return;
    const turn = this.#turn;
    this.#reading = true;
    let pause = EVERY_MS;
    try {
      const read = await tunnel(this.session);
      if (turn !== this.#turn) return;
      this.tunnel = read;
      this.problem = undefined;
    } catch (caught) {
      if (turn !== this.#turn) return;
      const error = asError(caught);
      if (error.code === 'link_invalid') return this.end();
      this.problem = error;
      pause = Math.max(EVERY_MS, (error.after ?? 0) * 1000);
    }
    this.#reading = false;
    this.readAgainAt = Date.now() + pause;
    this.#schedule();
  }

  /** Nothing is read while the tab is hidden; when it is shown again, at once, but no sooner than the server allows. */
  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.phase !== 'open' || this.#reading || document.hidden) return;
    this.#timer = setTimeout(() => void this.#read(), Math.max(0, this.readAgainAt - Date.now()));
  }
}

function stored(): SiteSession | undefined {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? 'null') as SiteSession | null;
    return kept?.session ? kept : undefined;
  } catch {
    return undefined;
  }
}

function keep(opened: SiteSession): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(opened));
  } catch {
    // Without storage, the session lasts until the page is reloaded.
  }
}

function forget(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // As above.
  }
}
