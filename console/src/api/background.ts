// Which calls a person caused, and which the page makes by itself. The server does not count the latter as use of a session.

/** Of a call that no person caused: without it, an open page would keep its session alive for ever. */
export const BACKGROUND = { 'X-Background': 'true' };

/** What a person's act leads to within this time was caused by it, such as the first readings of a page. */
const ASKED_MS = 5000;

const unasked = new WeakSet<AbortSignal>();
let acted = Date.now();

for (const type of ['pointerdown', 'keydown', 'hashchange', 'popstate']) {
  addEventListener(type, () => (acted = Date.now()), { capture: true, passive: true });
}

/** Whether a person did something a moment ago. */
export function isAsked(): boolean {
  return Date.now() - acted < ASKED_MS;
}

/** Calls with this signal are the page's own. */
export function markBackground(signal: AbortSignal): void {
  unasked.add(signal);
}

/** A request that says whether the page made it by itself. */
export class CallRequest extends Request {
  constructor(input: RequestInfo | URL, init?: RequestInit) {
    super(input, init);
    if (init?.signal && unasked.has(init.signal)) {
      for (const [name, value] of Object.entries(BACKGROUND)) this.headers.set(name, value);
    }
  }
}
