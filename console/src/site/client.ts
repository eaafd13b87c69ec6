// The calls of the site page: POST with JSON, relative to the page, without cookies. A session in the body is the only credential.
export type Stage = 'NOTHING_RECEIVED' | 'REFUSED' | 'CONNECTING' | 'UP' | 'UNKNOWN';
export type Words = { message: string; advice: string };

export interface SiteSession {
  session: string;
  expiresAt: string;
}

export interface SiteShare {
  id: string;
  name: string;
  ingressPort: number;
  address: string;
  ready: boolean;
  statusDetail?: Words & { reason: string };
}

export interface SiteTunnel {
  name: string;
  provider: { peerAddress?: string };
  peerPublicIp: string;
  peerCidr: string;
  loadBalancerIp: string;
  formats: string[];
  statusDetail?: Words & { reason: string };
  connection: { state: string; since: string; lastError?: Words & { reason: string; since: string } };
  heard: Words & { stage: Stage; warning?: string; lastPacketAt?: string; logRead: boolean };
  shares: SiteShare[];
}

export interface SiteCheck {
  ok: boolean;
  hops: { hop: string; state: string; message: string; advice?: string }[];
}

/** A refused or failed call. `code` is the API's, or `unreachable` without an answer. */
export class SiteError extends Error {
  constructor(
    readonly code: string,
    message: string,
    /** Seconds after which the call may be repeated. */
    readonly after?: number,
  ) {
    super(message);
  }
}

const ANSWER_WITHIN_MS = 10_000;
/** A check waits for a service that does not answer. */
const CHECK_WITHIN_MS = 30_000;

export async function open(token: string, passphrase?: string): Promise<SiteSession> {
  const body = passphrase === undefined ? { token } : { token, passphrase };
  return (await post('open', body)).json() as Promise<SiteSession>;
}

export async function tunnel(session: string): Promise<SiteTunnel> {
  return (await post('tunnel', { session })).json() as Promise<SiteTunnel>;
}

export async function check(session: string, shareId: string): Promise<SiteCheck> {
  return (await post('check', { session, shareId }, CHECK_WITHIN_MS)).json() as Promise<SiteCheck>;
}

/** The configuration as the text of a file; JSON is indented. */
export async function configuration(session: string, format: string): Promise<string> {
  const text = await (await post('configuration', { session, format })).text();
  return format === 'json' ? `${JSON.stringify(JSON.parse(text), null, 2)}\n` : text;
}

async function post(call: string, body: object, within = ANSWER_WITHIN_MS): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(`./site/${call}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
      body: JSON.stringify(body),
      credentials: 'omit',
      cache: 'no-store',
      signal: AbortSignal.timeout(within),
    });
  } catch {
    throw new SiteError('unreachable', 'The provider’s server does not answer. Check your internet connection.');
  }
  if (response.ok) return response;
  const after = Number(response.headers.get('Retry-After')) || undefined;
  const told = (await response.json().catch(() => undefined)) as { error?: string; message?: string } | undefined;
  throw new SiteError(told?.error ?? 'failed', told?.message ?? `The provider’s server answers with status ${response.status}.`, after);
}

export function asError(error: unknown): SiteError {
  return error instanceof SiteError ? error : new SiteError('failed', 'The answer of the provider’s server is not readable. Reload the page.');
}

/** What a call was refused for, and when the reader may repeat it. */
export function refusal(error: SiteError): string {
  return sentence(error.message) + (error.after ? ` Try again in ${error.after} s.` : '');
}

/** A message as a sentence: with a capital and a full stop. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}
