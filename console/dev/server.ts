// Vite's development server as a client of a real server: proxies the API with a token, and plays the session API.
// Only `vite` loads this file; `vite build` does not.
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Plugin } from 'vite';

const server = process.env.WICKETGATE_DEV_SERVER ?? 'http://127.0.0.1:8480';
const tokenFile = process.env.WICKETGATE_DEV_TOKEN_FILE;
// With `pass`, the server has the session API itself, and cookies pass unchanged.
const sessions = process.env.WICKETGATE_DEV_SESSIONS ?? 'play';

let signedIn = true;

export function developmentServer(): Plugin {
  const token = tokenFile ? readFileSync(tokenFile, 'utf8').trim() : '';
  const proxied = { target: server, headers: token && sessions === 'play' ? { Authorization: `Bearer ${token}` } : {} };
  return {
    name: 'wicketgate-development-server',
    config: () => ({
      server: {
        proxy: {
          '/frontdoor': proxied,
          '/docs': proxied,
          '/openapi.json': proxied,
          '/livez': proxied,
          '/readyz': proxied,
          '/site/': { target: server },
          ...(sessions === 'pass' ? { '/console': { target: server } } : {}),
        },
      },
    }),
    configureServer(vite) {
      if (sessions === 'pass') return;
      vite.middlewares.use('/console/options', (_request, response) =>
        answer(response, 200, { version: 'development', identityProvider: null }),
      );
      vite.middlewares.use('/console/session', (request, response) => void session(token, request, response));
      vite.middlewares.use('/frontdoor', (_request, response, next) =>
        signedIn ? next() : answer(response, 401, refusal('session_expired', 'The session has ended. Sign in again.')),
      );
    },
  };
}

async function session(token: string, request: IncomingMessage, response: ServerResponse) {
  if (request.method === 'DELETE') {
    signedIn = false;
    response.writeHead(204).end();
  } else if (request.method === 'POST') {
    const body = JSON.parse(await text(request)) as { token?: string };
    if (body.token !== token && body.token !== 'development') {
      answer(response, 401, refusal('token_invalid', 'The token is unknown, or it was revoked.'));
      return;
    }
    signedIn = true;
    answer(response, 201, identity());
  } else if (signedIn) {
    answer(response, 200, identity());
  } else {
    answer(response, 401, refusal('unauthorized', 'Not signed in.'));
  }
}

function identity() {
  return {
    actor: 'admin',
    kind: 'ADMIN',
    scopes: ['frontdoor.read', 'frontdoor.write', 'frontdoor.admin'],
    organizationId: null,
    frontdoorIds: null,
    expiresAt: new Date(Date.now() + 12 * 3600_000).toISOString(),
    idleSeconds: 3600,
    csrfToken: 'development',
  };
}

function refusal(error: string, message: string) {
  return { error, message, _links: { help: { href: `/docs/reasons/${error}` } } };
}

function answer(response: ServerResponse, status: number, body: unknown) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

async function text(request: IncomingMessage): Promise<string> {
  let all = '';
  for await (const chunk of request) all += chunk;
  return all;
}
