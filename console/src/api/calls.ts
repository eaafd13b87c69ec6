// What a call of the console is as a command: with curl, and with the command line of Wicketgate.
import { base } from './client';
import { frontdoors } from './frontdoors.svelte';
import { nameOf, type NamedKind } from './names.svelte';

export type Call = { method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'; path: string; query?: URLSearchParams; body?: unknown };

type Values = Record<string, unknown>;

/** Collections of the API, the command line's word for one of their resources, and how an id is named. */
const COLLECTIONS: Record<string, { word: string; kind?: NamedKind }> = {
  'ipsec-tunnels': { word: 'tunnel', kind: 'tunnel' },
  'ipsec-shares': { word: 'share', kind: 'share' },
  environments: { word: 'env', kind: 'environmentId' },
  agents: { word: 'agent', kind: 'agent' },
  executions: { word: 'execution' },
  locations: { word: 'location' },
  'api-accounts': { word: 'account', kind: 'account' },
};

/** No flag takes a secret, and no command shows one. */
const SECRETS = ['preSharedKey', 'passphrase'];

/** Flags that are not the property in kebab case. */
const FLAGS: Record<string, string> = { ipsecTunnelId: 'tunnel', envZId: 'env', environmentId: 'env', locationId: 'location', frontdoorIds: 'frontdoor-id', scopes: 'scope', tags: 'tag' };

/** The call with curl. The token is read from the file that `WICKETGATE_TOKEN_FILE` names, as the command line does; it is no argument of curl, which every user of the host could read. */
export function curl(call: Call): string {
  const lines = [`curl ${call.method === 'GET' || (call.method === 'POST' && call.body !== undefined) ? '' : `-X ${call.method} `}-H @<(printf 'Authorization: Bearer %s' "$(cat "$WICKETGATE_TOKEN_FILE")")`];
  if (call.body !== undefined) {
    lines.push(`-H 'Content-Type: application/json'`);
    lines.push(`-d ${quoted(JSON.stringify(call.body, (name, value: unknown) => (SECRETS.includes(name) && value ? 'SECRET' : value)))}`);
  }
  lines.push(quoted(`${base}${call.path}${call.query?.size ? `?${call.query}` : ''}`));
  return lines.join(' \\\n  ');
}

/** The same with the command line; undefined if that has no such command. */
export function command(call: Call): string | undefined {
  const parts = call.path.replace(/^\/frontdoor\/v2\/?/, '').split('/').filter(Boolean);
  if (parts[0] === 'unknown-agents') return parts[1] ? `wicketgate agent adopt ${parts[1]}` : 'wicketgate agent unknown';
  const ofFrontdoor = parts[0] !== undefined && COLLECTIONS[parts[0]] === undefined;
  const [collection, id, ...action] = ofFrontdoor ? parts.slice(1) : parts;
  const words = collection === undefined ? frontdoor(call, parts[0]) : resource(call, collection, id, action.join('/'));
  if (!words) return undefined;
  if (ofFrontdoor && collection !== undefined && frontdoors.all.length > 1) words.push(`--frontdoor ${quoted(parts[0]!)}`);
  return folded(['wicketgate', ...words]);
}

function frontdoor(call: Call, id: string | undefined): string[] | undefined {
  const values = (call.body ?? {}) as Values;
  if (call.method === 'POST') return ['frontdoor create', ...flags(values)];
  if (call.method === 'DELETE') return [`frontdoor delete ${id}`];
  if (call.method === 'PATCH') return [`frontdoor update ${id}`, ...flags(values)];
  return id ? [`frontdoor get ${id}`] : ['frontdoor list'];
}

function resource(call: Call, collection: string, id: string | undefined, action: string): string[] | undefined {
  const found = COLLECTIONS[collection];
  if (!found) return undefined;
  const { word, kind } = found;
  const values = (call.body ?? {}) as Values;
  if (collection === 'agents' && id === 'enrollments') {
    if (call.method === 'POST') return ['agent enroll', ...flags({ environmentId: values.environmentId })];
    return call.method === 'DELETE' ? [`agent revoke-code ${action}`] : ['agent codes', ...filters(call.query)];
  }
  if (id === undefined && call.method === 'GET') return [`${word} list`, ...filters(call.query)];
  if (id === undefined) {
    const { name, ...rest } = values;
    return [`${word} create${typeof name === 'string' ? ` ${quoted(name)}` : ''}`, ...flags(rest)];
  }
  const who = quoted((kind ? nameOf(kind, id) : undefined) ?? id);
  if (action) return onResource(`${word} `, action, who, values, call.method);
  if (call.method === 'GET') return [`${word} get ${who}`];
  if (call.method === 'DELETE') return [`${word} delete ${who}`];
  if (word === 'agent') return undefined;
  const properties = Object.keys(values);
  if (properties.length === 1 && typeof values.enabled === 'boolean') return [`${word} ${values.enabled ? 'enable' : 'disable'} ${who}`];
  return [`${word} update ${who}`, ...flags(values)];
}

/** Calls below a resource. */
function onResource(word: string, action: string, who: string, values: Values, method: string): string[] | undefined {
  switch (action) {
    case 'check': return [`${word}check ${who}`];
    case 'metrics': return [`${word}metrics ${who}`];
    case 'vpn-config': return [`${word}config ${who}`, ...flags(values)];
    case 'connection-history': return [`${word}history ${who}`];
    case 'ike-log': return [`${word}ike-log ${who}`];
    case 'connections/close': return [`${word}close-connections ${who}`, ...flags(values)];
    case 'reset': return [`${word}reset ${who}`, ...flags(values)];
    case 'psk': return method === 'POST' ? [`${word}rotate-key ${who}`, ...flags(values)] : undefined;
    case 'handover-links': return method === 'POST' ? [`${word}handover ${who}`, ...flags(values)] : [`${word}handover-links ${who}`];
    default: return method === 'DELETE' && action.startsWith('handover-links/') ? [`${word}revoke-handover ${who} ${action.split('/')[1]}`] : undefined;
  }
}

function filters(query: URLSearchParams | undefined): string[] {
  const words: string[] = [];
  for (const [name, value] of query ?? []) {
    if (name === 'page' || name === 'size') continue;
    words.push(name === 'sort' ? `--sort ${quoted(value)}` : quoted(`${name}=${value}`));
  }
  return words;
}

/** Properties as flags; `null` removes one. */
function flags(values: Values): string[] {
  const words: string[] = [];
  for (const [name, value] of Object.entries(values)) {
    const flag = FLAGS[name] ?? kebab(name);
    if (value === undefined) continue;
    if (value === null) words.push(`--unset ${flag}`);
    else if (SECRETS.includes(name)) words.push(`--${kebab(name)}-file FILE`);
    else if (typeof value === 'boolean') words.push(value ? `--${flag}` : `--${flag}=false`);
    else if (Array.isArray(value)) words.push(...value.map((each) => `--${flag} ${quoted(String(each))}`));
    else if (name === 'tags') words.push(...Object.entries(value as Values).map(([key, tag]) => (tag === null ? `--unset tag.${key}` : `--tag ${quoted(`${key}=${tag}`)}`)));
    else if (typeof value === 'object') words.push(...flags(Object.fromEntries(Object.entries(value).map(([key, inner]) => [`${name}-${key}`, inner]))));
    else words.push(`--${flag} ${quoted(argument(name, String(value)))}`);
  }
  return words;
}

/** A tunnel or an environment by its name, where that is known. */
function argument(name: string, value: string): string {
  const kinds: Record<string, NamedKind> = { ipsecTunnelId: 'tunnel', envZId: 'environment', environmentId: 'environmentId' };
  const kind = kinds[name];
  return (kind ? nameOf(kind, value) : undefined) ?? value;
}

function kebab(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, '$1-$2').replace(/\./g, '-').toLowerCase();
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** One line if it is short, otherwise a word with its value a line. */
function folded(words: string[]): string {
  const line = words.join(' ');
  return line.length <= 76 ? line : `${words.slice(0, 2).join(' ')} \\\n  ${words.slice(2).join(' \\\n  ')}`;
}
