// Calls of the server: the typed client, one function for lists, and what every call has in common (CSRF, an ended session, failures).
import createClient from 'openapi-fetch';
import type { components, paths } from '../generated/api';
import { BACKGROUND, CallRequest } from './background';
import { elapsed, pause, PATIENCE_S } from './patience';
import { session } from './session.svelte';

export type Schemas = components['schemas'];
export type Tunnel = Schemas['IpsecTunnel'];
export type Share = Schemas['IpsecShare'];
export type Environment = Schemas['Environment'];
export type Agent = Schemas['Agent'];
export type Account = Schemas['ApiAccount'];
export type Execution = Schemas['Execution'];
export type Frontdoor = Schemas['Frontdoor'];
export type Location = Schemas['Location'];
export type StatusDetail = Schemas['StatusDetail'];
export type Connection = Schemas['Connection'];
export type Metrics = Schemas['Metrics'];
export type Installation = Schemas['Installation'];
export type EnrolmentCode = Schemas['EnrollmentCode'];
export type UnknownAgent = Schemas['UnknownAgent'];
export type UnknownPeer = Schemas['UnknownPeer'];
export type Fault = { property: string; message: string };
export type Page<T> = { content: T[]; pageable: { pageNumber: number; pageSize: number }; totalElements: number; totalPages: number };
export type Query = Record<string, string | number | boolean | string[] | undefined> | URLSearchParams;

/** The directory of the page: every call is below it, whatever prefix a proxy adds. */
export const base = new URL('.', document.baseURI).href.replace(/\/$/, '');

/** An answer that is no success, or no answer. `error` is the API's code, `unreachable` or `session_ended`. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    readonly error: string,
    message: string,
    readonly details: Fault[] = [],
    readonly help?: string,
  ) {
    super(message);
    this.name = 'Failure';
  }

  /** The fault at a property, for its field. The API names the property of a single fault at the beginning of its message. */
  at(property: string): string | undefined {
    if (this.details.length === 0) return this.message.startsWith(`${property} `) ? this.message : undefined;
    return this.details.find((fault) => fault.property === property)?.message;
  }
}

const REPLACED = 'Another user signed in with this browser. The request was not sent again.';

/**
 * Sends a request; if the session has ended, waits until the user has signed in again and sends it once more. A request that is
 * refused for its rate is sent again when the server says.
 */
async function send(request: Request): Promise<Response> {
  let patience = PATIENCE_S;
  for (;;) {
    const attempt = request.clone();
    if (!['GET', 'HEAD'].includes(request.method)) attempt.headers.set('X-CSRF-Token', session.current?.csrfToken ?? '');
    const used = session.current?.csrfToken;
    let response: Response;
    try {
      response = await fetch(attempt);
    } catch (cause) {
      if (request.signal.aborted) throw cause;
      throw new Failure(0, 'unreachable', 'The server does not answer. Check the network; nothing that you typed is lost.');
    }
    if (response.status === 401) {
      if (!(await session.renew(used))) throw new Failure(401, 'session_ended', session.replaced ? REPLACED : 'You are signed out.');
      continue;
    }
    if (response.status === 403 && used !== undefined && (await code(response)) === 'csrf_token_missing') {
      // The browser has another session by now. The call is sent again only if that is the same user's.
      const found = await session.read();
      if (session.replaced) throw new Failure(401, 'session_ended', REPLACED);
      if (found ? session.current?.csrfToken !== used : session.expired && (await session.renew(used))) continue;
    }
    const wait = pause(response);
    if (wait !== undefined && wait <= patience) {
      patience -= wait;
      await elapsed(wait, request.signal);
      continue;
    }
    return response;
  }
}

async function code(response: Response): Promise<string | undefined> {
  return ((await response.clone().json().catch(() => undefined)) as { error?: string } | undefined)?.error;
}

/** The typed client. Use it within `must`. */
export const api = createClient<paths>({ baseUrl: base, fetch: send, Request: CallRequest });

/** The data of a call of the typed client; throws a `Failure`. */
export async function must<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw failure(response, error);
  return data as T;
}

/** The same with the response, for its ETag. */
export async function mustWithTag<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<{ data: T; etag: string | null }> {
  const { data, error, response } = await call;
  if (!response.ok) throw failure(response, error);
  return { data: data as T, etag: response.headers.get('ETag') };
}

/** A page of a list, whose filters are not known before. `path` begins with `/`. */
export async function list<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<Page<T>> {
  return request<Page<T>>('GET', path, { query, ...(signal ? { signal } : {}) });
}

/** The same, for what no person asked for. */
export async function listInBackground<T>(path: string, query: Query = {}): Promise<Page<T>> {
  return request<Page<T>>('GET', path, { query, headers: BACKGROUND });
}

/** A call that the typed client does not know. */
export async function request<T>(
  method: string,
  path: string,
  options: { query?: Query; body?: unknown; headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<T> {
  const response = await send(
    new CallRequest(`${base}${path}${search(options.query)}`, {
      method,
      headers: { Accept: 'application/json', ...(options.body === undefined ? {} : { 'Content-Type': 'application/json' }), ...options.headers },
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
      ...(options.signal ? { signal: options.signal } : {}),
    }),
  );
  const text = await response.text();
  let parsed: unknown = text;
  try {
    parsed = text ? JSON.parse(text) : undefined;
  } catch {
    // An answer that is no JSON is shown as it is.
  }
  if (!response.ok) throw failure(response, parsed);
  return parsed as T;
}

function search(query: Query | undefined): string {
  const parameters = query instanceof URLSearchParams ? query : new URLSearchParams();
  if (query && !(query instanceof URLSearchParams)) {
    for (const [name, value] of Object.entries(query)) {
      if (value === undefined) continue;
      for (const each of Array.isArray(value) ? value : [value]) parameters.append(name, String(each));
    }
  }
  const text = parameters.toString();
  return text ? `?${text}` : '';
}

/** What an answer that is no success says. */
export function failure(response: Response, body: unknown): Failure {
  const error = (typeof body === 'object' && body !== null ? body : {}) as Partial<Schemas['Error']>;
  const help = (error._links as { help?: { href: string } } | undefined)?.help?.href;
  return new Failure(
    response.status,
    error.error ?? 'unexpected',
    error.message ?? `The server, or a proxy in front of it, answered ${response.status} ${response.statusText}.`,
    error.details ?? [],
    help,
  );
}

/** What was thrown, as a `Failure`. */
export function asFailure(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown;
  return new Failure(0, 'unexpected', thrown instanceof Error ? thrown.message : String(thrown));
}
