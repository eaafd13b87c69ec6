// Who is signed in, until when, and how to sign in again without losing the page.
const base = new URL('.', document.baseURI).href.replace(/\/$/, '');

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

  #waiting: Promise<boolean> | undefined;
  #settle: ((again: boolean) => void) | undefined;

  can(what: 'read' | 'write' | 'admin'): boolean {
    return this.current?.scopes.includes(`frontdoor.${what}`) ?? false;
  }

  /** Whether the account may manage API accounts, and see those of its organization. */
  get managesAccounts(): boolean {
    return this.can('admin') && !this.current?.frontdoorIds;
  }

  /** Asks the server who is signed in. */
  async read(): Promise<boolean> {
    try {
      const response = await fetch(`${base}/console/session`, { headers: { Accept: 'application/json' } });
      this.problem = response.ok || response.status === 401 ? undefined : `The server, or a proxy in front of it, answered ${response.status} ${response.statusText}.`;
      if (response.ok) this.current = (await response.json()) as Session;
      else if (response.status === 401 && !this.expired) this.current = undefined;
      return response.ok;
    } catch {
      this.problem = 'The server does not answer. Check that it runs, and the network to it.';
      return false;
    } finally {
      this.known = true;
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
      return 'The server does not answer. Check that it runs, and the network to it.';
    }
    const body = (await response.json().catch(() => ({}))) as Partial<Session> & { message?: string };
    if (!response.ok) return body.message ?? `The server answered ${response.status} ${response.statusText}.`;
    this.#begin(body as Session);
    return undefined;
  }

  /** After a sign-in elsewhere (another tab, the identity provider): takes over its session. */
  async resume(): Promise<boolean> {
    const before = this.current?.actor;
    const found = await this.read();
    // What was typed belongs to another user.
    if (found && before !== undefined && this.current?.actor !== before) location.reload();
    else if (found && this.current) this.#begin(this.current);
    return found;
  }

  /** Called for a 401: resolves to true once there is another session than the refused one. */
  async renew(refusedCsrfToken: string | undefined): Promise<boolean> {
    if (!this.current) return false;
    if (this.current.csrfToken !== refusedCsrfToken) return true;
    this.#waiting ??= new Promise((resolve) => {
      this.#settle = resolve;
      this.expired = true;
    });
    return this.#waiting;
  }

  /** Ends the session at the server, or all of the same actor. */
  async signOut(all = false): Promise<void> {
    try {
      await fetch(`${base}/console/session${all ? '?all=true' : ''}`, { method: 'DELETE', headers: { 'X-CSRF-Token': this.current?.csrfToken ?? '' } });
    } finally {
      this.current = undefined;
      this.expired = false;
      this.#settle?.(false);
      this.#waiting = undefined;
    }
  }

  #begin(session: Session): void {
    this.current = session;
    this.known = true;
    this.expired = false;
    this.problem = undefined;
    this.#settle?.(true);
    this.#waiting = undefined;
  }

  /** Where the identity provider's sign-in begins; `after` is the fragment to return to. */
  providerSignIn(after: string): string {
    return `${base}/console/sign-in?return=${encodeURIComponent(after)}`;
  }
}

export const session = new SessionState();
