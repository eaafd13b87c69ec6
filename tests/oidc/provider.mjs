// An OpenID provider on its own port, for one run of the tests. It reads commands as lines of JSON from standard input,
// answers each with a line of JSON, and exits at the end of the input.
//
//   {"do": "sign", "alg": "ES256", "claims": {…}, "header": {…}}   a JWT signed with the current key
//   {"do": "client", "redirect": "http://…/console/callback"}      a web console, whose users sign in at this provider
//   {"do": "rotate"}                                               new keys replace the old ones
//   {"do": "stop"} {"do": "start"}                                 closes its port, and opens the same port again

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { randomUUID } from 'node:crypto';
import { exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose';
import { Provider } from 'oidc-provider';

// Standard output carries only answers.
console.info = console.warn = console.log = console.error;

const ALGORITHMS = ['RS256', 'ES256', 'EdDSA'];
const AUDIENCE = 'https://wicketgate.example/';
const SCOPES = 'frontdoor.read frontdoor.write frontdoor.admin';

let issuer;
let keys;
let answer;
let provider;
const consoles = [];

async function makeKeys() {
  return Promise.all(ALGORITHMS.map(async (alg) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: randomUUID() };
  }));
}

// A resource server is an audience. Its name contains the algorithm of its tokens' signatures.
function resourceServer(_, resource) {
  const alg = ALGORITHMS.find((name) => resource === AUDIENCE + name) ?? 'ES256';
  return { audience: resource, scope: SCOPES, accessTokenFormat: 'jwt', jwt: { sign: { alg } } };
}

// Who has signed in has consented.
async function loadExistingGrant({ oidc }) {
  const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
  grant.addOIDCScope(`openid ${SCOPES}`);
  grant.addResourceScope(`${AUDIENCE}ES256`, SCOPES);
  await grant.save();
  return grant;
}

// The page to sign in at: whoever presses the first button is `alice`, and whoever presses the second is refused.
async function interact(request, response) {
  if (request.method === 'POST' && request.url.endsWith('?refuse')) {
    await provider.interactionFinished(request, response, { error: 'access_denied', error_description: 'refused in a test' });
  } else if (request.method === 'POST') {
    await provider.interactionFinished(request, response, { login: { accountId: 'alice' } });
  } else {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>Sign in</title><form method="post"><button>Sign in as alice</button><button formaction="?refuse">Refuse</button></form>');
  }
}

function makeProvider() {
  provider = new Provider(issuer, {
    jwks: { keys },
    clients: [...consoles, {
      client_id: 'a-program',
      client_secret: 'the-secret-of-a-program-in-a-test',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    }],
    scopes: ['openid', ...SCOPES.split(' ')],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
    },
    extraTokenClaims: () => ({ organization: 'default' }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant,
  });
  answer = provider.callback();
}

const server = createServer((request, response) => {
  const handle = request.url.startsWith('/interaction/') ? interact : answer;
  return handle(request, response);
});
const listen = (port) => new Promise((done) => server.listen(port, '127.0.0.1', done));
await listen(0);
const { port } = server.address();
issuer = `http://127.0.0.1:${port}`;
keys = await makeKeys();
makeProvider();

const say = (it) => process.stdout.write(`${JSON.stringify(it)}\n`);
say({ issuer });

for await (const line of createInterface({ input: process.stdin })) {
  const wanted = JSON.parse(line);
  if (wanted.do === 'sign') {
    const key = keys.find((k) => k.alg === wanted.alg);
    const header = { alg: key.alg, kid: key.kid, typ: 'at+jwt', ...wanted.header };
    const token = await new SignJWT({ iss: issuer, ...wanted.claims })
      .setProtectedHeader(header)
      .sign(await importJWK(key, key.alg));
    say({ token });
  } else if (wanted.do === 'client') {
    // The second one has to be encoded in `Authorization`.
    const clients = [['the-console', 'the-secret-of-a-console-in-a-test'], ['https://console.example:1/', 'a+secret%20of: a console in a test']];
    for (const [client_id, client_secret] of clients) {
      consoles.push({ client_id, client_secret, grant_types: ['authorization_code'], redirect_uris: [wanted.redirect], response_types: ['code'] });
    }
    makeProvider();
    say({});
  } else if (wanted.do === 'rotate') {
    keys = await makeKeys();
    makeProvider();
    say({});
  } else if (wanted.do === 'stop') {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
    say({});
  } else if (wanted.do === 'start') {
    await listen(port);
    say({});
  }
}
process.exit(0);
