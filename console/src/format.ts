// How values are written: times, durations, bytes, rates, counts, and the mark of a state.
import type { Agent, Environment, Execution, Share, Tunnel } from './api/client';

export type Tone = 'ok' | 'warn' | 'bad' | 'busy' | 'off';
/** A state as a mark shows it: never a colour alone. */
export type State = { tone: Tone; word: string };

const DASH = '–';

/** `2026-11-29 14:03:07`, in the browser's time zone. */
export function time(at: string | Date | number | undefined | null): string {
  if (at === undefined || at === null) return DASH;
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return DASH;
  const two = (value: number) => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** `14:03:07` today, otherwise with the date. */
export function shortTime(at: string | Date | undefined | null): string {
  const text = time(at);
  return text.slice(0, 10) === time(new Date()).slice(0, 10) ? text.slice(11) : text;
}

/** `3 m 12 s`: the two largest units. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const units: [number, string][] = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']];
  const first = units.findIndex(([length]) => whole >= length);
  if (first === -1) return '0 s';
  const [length, name] = units[first]!;
  const rest = units[first + 1];
  const more = rest ? Math.floor((whole % length) / rest[0]) : 0;
  return `${Math.floor(whole / length)} ${name}${rest && more > 0 ? ` ${more} ${rest[1]}` : ''}`;
}

/** `3 m 12 s ago`, or `in 2 h`. */
export function ago(at: string | Date | undefined | null, now: number = Date.now()): string {
  if (!at) return DASH;
  const seconds = (now - new Date(at).getTime()) / 1000;
  if (seconds < -1) return `in ${duration(-seconds)}`;
  return seconds < 2 ? 'just now' : `${duration(seconds)} ago`;
}

/** `0.4 ms`, `12 ms`; what is too short for the clock of a check is `< 0.1 ms`. */
export function latency(milliseconds: number): string {
  if (milliseconds < 0.05) return '< 0.1 ms';
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

/** `1.2 MB`: decimal units, as network counters have. */
export function bytes(count: number | undefined | null): string {
  if (count === undefined || count === null) return DASH;
  return scaled(count, ['B', 'kB', 'MB', 'GB', 'TB', 'PB']);
}

/** `1.2 Mbit/s` for bytes in a time. */
export function rate(bytesPerSecond: number | undefined | null): string {
  if (bytesPerSecond === undefined || bytesPerSecond === null) return DASH;
  return scaled(bytesPerSecond * 8, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s']);
}

function scaled(value: number, units: string[]): string {
  let unit = 0;
  let rest = value;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  const text = unit === 0 || rest >= 100 ? String(Math.round(rest)) : rest.toPrecision(rest >= 10 ? 3 : 2).replace(/\.0$/, '');
  return `${text} ${units[unit]}`;
}

/** `12,345` */
export function count(value: number | undefined | null): string {
  return value === undefined || value === null ? DASH : value.toLocaleString('en-US');
}

/** `3 shares`, `1 share`. */
export function counted(value: number, one: string, several: string = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : several}`;
}

/** An id in short: its kind, and the end that differs. */
export function shortId(id: string): string {
  const match = /^([a-z]{3})-[0-9a-f]{24}([0-9a-f]{8})$/.exec(id);
  if (match) return `${match[1]}-…${match[2]}`;
  return /^[0-9a-f]{8}-/.test(id) ? `${id.slice(0, 8)}…` : id;
}

/** Whether the tunnel's configuration is in effect, and whether its device is connected: the worse of the two. `neverUp`: as far
 * as is known, its device has never been connected. */
export function tunnelState(tunnel: Pick<Tunnel, 'status' | 'ready' | 'connection'>, neverUp = false): State {
  const written = writtenState(tunnel.status);
  if (written) return written;
  if (neverUp && isAwaited(tunnel)) return { tone: 'off', word: 'Waiting for the device' };
  const connection = tunnel.connection;
  // Without IPsec, nothing connects.
  if (!connection || (tunnel.ready && connection.state === 'DOWN')) return tunnel.ready ? { tone: 'ok', word: 'Ready' } : { tone: 'bad', word: 'Not ready' };
  const warnings = connection.warnings ?? [];
  if (connection.state === 'UP' && warnings.some((warning) => warning.reason === 'PeerSilent')) return { tone: 'bad', word: 'Silent' };
  if (connection.state === 'UP' && (warnings.length > 0 || connection.lastError)) return { tone: 'warn', word: 'Up, in doubt' };
  return connectionState(connection.state);
}

/** Whether a tunnel that was never up merely waits: it is in effect, and no device was refused. */
export function isAwaited({ status, ready, connection }: Pick<Tunnel, 'status' | 'ready' | 'connection'>): boolean {
  return status === 'DEPLOYED' && !ready && connection.state === 'DOWN' && !connection.lastError;
}

export function connectionState(state: string | undefined): State {
  switch (state) {
    case 'UP': return { tone: 'ok', word: 'Up' };
    case 'CONNECTING': return { tone: 'busy', word: 'Connecting' };
    case 'IDLE': return { tone: 'warn', word: 'Idle' };
    case 'DOWN': return { tone: 'bad', word: 'Down' };
    default: return { tone: 'off', word: 'Unknown' };
  }
}

export function shareState(share: Pick<Share, 'status' | 'ready' | 'statusDetail'>): State {
  const written = writtenState(share.status);
  if (written) return written;
  if (!share.ready) return { tone: 'bad', word: 'Not ready' };
  return share.statusDetail ? { tone: 'warn', word: 'Ready, in doubt' } : { tone: 'ok', word: 'Ready' };
}

/** Whether a share or a tunnel is deleted, or about to be: what was last reported of it is no longer so. */
export function isGone({ status }: { status: string }): boolean {
  return status === 'DELETING' || status === 'DELETED';
}

/** The state of what is not DEPLOYED. */
function writtenState(status: string): State | undefined {
  switch (status) {
    case 'NEW': return { tone: 'busy', word: 'New' };
    case 'ERROR': return { tone: 'bad', word: 'Error' };
    case 'DISABLED': return { tone: 'off', word: 'Disabled' };
    case 'DELETING': return { tone: 'busy', word: 'Deleting' };
    case 'DELETED': return { tone: 'off', word: 'Deleted' };
    default: return undefined;
  }
}

export function agentState(agent: Pick<Agent, 'status' | 'unansweredSince' | 'clockSecondsAhead'>): State {
  if (agent.status === 'OFFLINE') return { tone: 'bad', word: 'Offline' };
  if (agent.unansweredSince) return { tone: 'bad', word: 'Silent' };
  if (agent.clockSecondsAhead !== undefined) return { tone: 'warn', word: 'Connected, wrong clock' };
  return { tone: 'ok', word: 'Connected' };
}

/** What an execution did, before `by somebody` and before the name of a resource. */
const ACTIONS: Record<string, [done: string, did: string]> = {
  CREATE: ['Created', 'Created'],
  UPDATE: ['Changed', 'Changed'],
  DELETE: ['Deleted', 'Deleted'],
  ROTATE_KEY: ['Key replaced', 'Replaced the key of'],
  READ_KEY: ['Key read', 'Read the key of'],
  ENROL: ['Enrolled', 'Enrolled'],
  CLOSE_CONNECTIONS: ['Connections closed', 'Closed connections of'],
  CONFIRM_REMOVAL: ['Removal confirmed', 'Confirmed the removals of'],
  RESET: ['Reset', 'Reset'],
  OPEN: ['Opened', 'Opened'],
  AUTHENTICATE: ['Sign-in refused', 'Failed to sign in with'],
};

/** `Key read`, to be followed by who did it. */
export function actionDone(action: string): string {
  return ACTIONS[action]?.[0] ?? action;
}

/** `Read the key of`, to be followed by the resource. */
export function actionDid(action: string): string {
  return ACTIONS[action]?.[1] ?? action;
}

export function environmentState(environment: Pick<Environment, 'status'>): State {
  return environment.status === 'ACTIVE' ? { tone: 'ok', word: 'Active' } : { tone: 'bad', word: 'Offline' };
}

export function executionState(execution: Pick<Execution, 'status'>): State {
  switch (execution.status) {
    case 'SUCCESS': return { tone: 'ok', word: 'Success' };
    case 'FAILED': return { tone: 'bad', word: 'Failed' };
    default: return { tone: 'busy', word: 'Running' };
  }
}
