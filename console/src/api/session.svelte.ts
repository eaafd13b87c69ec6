// Who is signed in, until when, and how to sign in again without losing the page.
const base = new URL('.', document.baseURI).href.replace(/\/$/, '');

const SILENT = 'The server does not answer. Check that it runs, and the network to it.';

export type Session = {
  actor: string;
  kind: 'ADMIN' | 'ACCOUNT' | 'IDENTITY_PROVIDER';
  scopes: string[];
  organizationId?: string | null;
  frontdoorIds?: string[] | null;
  expiresAt: string;
  idleSeconds: number;
  csrfToken: string;
};

export type Options = { version: string; identityProvider?: { issuer: string } | null };

class SessionState {
  /** Absent before the sign-in. */
  current = $state<Session | undefined>();
  /** Whether the first question to the server has been answered. */
  known = $state(false);
  /** Whether the dialog that asks to sign in again is open. */
  expired = $state(false);
  options = $state<Options | undefined>();
  /** Why the server could not be asked. */
  problem = $state<string | undefined>();

  /** What a sign-out left to say. */
  notice = $state<string | undefined>();
  /** Another user signed in with this browser: nothing more is sent until the page is read again. */
  replaced = false;

  /** The user that this page has been shown to. */
  #user: string | undefined;
  /** Counts sign-ins and sign-outs. */
  #turn = 0;
  #waiting: Promise<boolean> | undefined;
  #settle: ((again: boolean) => void) | undefined;

  can(what: 'read' | 'write' | 'admin'): boolean {
    return this.current?.scopes.includes(`frontdoor.${what}`) ?? false;
  }

  /** Whether the account may manage API accounts, and see those of its organization. */
  get managesAccounts(): boolean {
    return this.can('admin') && !this.current?.frontdoorIds;
  }

  /** Whether it is the operator of the installation, who alone sees what may be of any organization. */
  get operates(): boolean {
    return this.current?.kind === 'ADMIN';
  }

  /** Asks the server who is signed in; resolves to whether that is the user of this page. */
  async read(): Promise<boolean> {
    const turn = this.#turn;
    const found = await this.#ask();
    this.known = true;
    // A sign-in or a sign-out was faster.
    if (turn !== this.#turn) return this.current !== undefined;
    if (typeof found === 'object') return this.#take(found);
    // The session has ended; what was typed is kept for the next one.
    if (found === 'none' && this.current) void this.renew(this.current.csrfToken);
    return false;
  }

  /** The session that the browser has; `none` if it has none, `unknown` if the server did not say. */
  async #ask(): Promise<Session | 'none' | 'unknown'> {
    try {
      const response = await fetch(`${base}/console/session`, { headers: { Accept: 'application/json' } });
      this.problem = response.ok || response.status === 401 ? undefined : unexpected(response);
      if (response.ok) return (await response.json()) as Session;
      return response.status === 401 ? 'none' : 'unknown';
    } catch {
      this.problem = SILENT;
      return 'unknown';
    }
  }

  async readOptions(): Promise<void> {
    try {
      const response = await fetch(`${base}/console/options`, { headers: { Accept: 'application/json' } });
      if (response.ok) this.options = (await response.json()) as Options;
    } catch {
      // The sign-in by token works without them.
    }
  }

  /** Signs in with a token; resolves to the server's message if it refuses. */
  async signIn(token: string): Promise<string | undefined> {
    let response: Response;
    try {
      response = await fetch(`${base}/console/session`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
        body: JSON.stringify({ token }),
      });
    } catch {
      return SILENT;
    }
    const body = (await response.json().catch(() => ({}))) as Partial<Session> & { message?: string };
    if (!response.ok) return body.message ?? unexpected(response);
    this.#take(body as Session);
    return undefined;
  }

  /** After a sign-in elsewhere (another tab, the identity provider): takes over its session. */
  async resume(): Promise<boolean> {
    return (await this.read()) || this.replaced;
  }

  /** Called for a 401: resolves to true once there is another session than the refused one. */
  async renew(refusedCsrfToken: string | undefined): Promise<boolean> {
    if (!this.current || this.replaced) return false;
    if (this.current.csrfToken !== refusedCsrfToken) return true;
    this.#waiting ??= new Promise((resolve) => {
      this.#settle = resolve;
      this.expired = true;
    });
    return this.#waiting;
  }

  /** Ends the session at the server, or all of the same actor. Resolves to why that failed; then the user is still signed in. */
  async signOut(all = false): Promise<string | undefined> {
    let response = await this.#delete(all);
    if (response?.status === 403) {
      // Another tab began another session, whose CSRF token this one does not have yet.
      const found = await this.#ask();
      if (typeof found === 'object') {
        if (!this.#take(found)) return 'Another user signed in with this browser. The page is read again.';
        response = await this.#delete(all);
      } else if (found === 'none') {
        this.#end(all);
        return undefined;
      }
    }
    if (response?.status === 204 || response?.status === 401) {
      this.#end(all && response.status === 401);
      return undefined;
    }
    if (!response) return SILENT;
    const body = (await response.json().catch(() => ({}))) as { message?: string };
    return body.message ?? unexpected(response);
  }

  async #delete(all: boolean): Promise<Response | undefined> {
    try {
      return await fetch(`${base}/console/session${all ? '?all=true' : ''}`, {
        method: 'DELETE',
        headers: { Accept: 'application/json', 'X-CSRF-Token': this.current?.csrfToken ?? '' },
      });
    } catch {
      return undefined;
    }
  }

  /** Takes over a session. What the page has, and calls that wait, are only for the user who began it: for another one, it is read again. */
  #take(session: Session): boolean {
    this.#turn++;
    if (this.#user !== undefined && this.#user !== userOf(session)) {
      this.replaced = true;
      this.#answer(false);
      location.reload();
      return false;
    }
    this.#user = userOf(session);
    this.current = session;
    this.known = true;
    this.expired = false;
    this.problem = undefined;
    this.notice = undefined;
    this.#answer(true);
    return true;
  }

  #end(othersMayGoOn: boolean): void {
    this.#turn++;
    this.current = undefined;
    this.expired = false;
    this.notice = othersMayGoOn ? 'This session had already ended, so the server did not end your other ones. To end them, sign in and sign out everywhere again.' : undefined;
    this.#answer(false);
  }

  /** Says to the calls that wait whether they are sent again. */
  #answer(again: boolean): void {
    this.#settle?.(again);
    this.#settle = undefined;
    this.#waiting = undefined;
  }

  /** Where the identity provider's sign-in begins; `after` is the fragment to return to. */
  providerSignIn(after: string): string {
    return `${base}/console/sign-in?return=${encodeURIComponent(after)}`;
  }
}

function unexpected(response: Response): string {
  return `The server, or a proxy in front of it, answered ${response.status} ${response.statusText}.`;
}

/** Whose session it is, and what it reaches. */
function userOf({ actor, kind, scopes, organizationId, frontdoorIds }: Session): string {
  return JSON.stringify([kind, actor, scopes.toSorted(), organizationId ?? null, frontdoorIds?.toSorted() ?? null]);
}

export const session = new SessionState();
