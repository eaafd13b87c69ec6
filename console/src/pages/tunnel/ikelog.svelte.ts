// The IKE log of a tunnel as it is written: the lines that the gateway has, and further ones through server-sent events.
import { BACKGROUND } from '../../api/background';
import { base } from '../../api/client';
import { session } from '../../api/session.svelte';

export interface LogLine {
  number: number;
  at: string;
  group: string;
  ikeSa?: number;
  message: string;
}

/** The gateway keeps as many. */
const KEPT = 2000;
const RETRY_MS = 3000;
/** Lines of one burst are drawn at once. */
const FLUSH_MS = 100;

export class IkeLogStream {
  lines = $state.raw<LogLine[]>([]);
  state = $state<'connecting' | 'open' | 'lost'>('connecting');

  #url: string;
  #source: EventSource | undefined;
  #waiting: LogLine[] = [];
  #flush: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #ended = false;

  constructor(frontdoor: string, id: string) {
    this.#url = `${base}/frontdoor/v2/${frontdoor}/ipsec-tunnels/${id}/ike-log?follow=true`;
    this.#open();
  }

  close(): void {
    this.#ended = true;
    clearTimeout(this.#flush);
    clearTimeout(this.#retry);
    this.#source?.close();
  }

  #open(): void {
    const last = this.lines.at(-1)?.number;
    const source = new EventSource(last === undefined ? this.#url : `${this.#url}&since=${last}`);
    this.#source = source;
    source.onopen = () => (this.state = 'open');
    source.addEventListener('ike-log', (event) => this.#take((event as MessageEvent<string>).data));
    source.onerror = () => {
      // The server ends a stream after ten minutes; then the browser resumes it by itself.
      this.state = 'lost';
      if (source.readyState !== EventSource.CLOSED || this.#ended) return;
      source.close();
      this.#retry = setTimeout(() => void this.#again(), RETRY_MS);
    };
  }

  async #again(): Promise<void> {
    const token = session.current?.csrfToken;
    const response = await fetch(`${base}/console/session`, { headers: BACKGROUND }).catch(() => undefined);
    if (response?.status === 401 && !(await session.renew(token))) return;
    if (!this.#ended) this.#open();
  }

  #take(data: string): void {
    try {
      this.#waiting.push(JSON.parse(data) as LogLine);
    } catch {
      return;
    }
    this.#flush ??= setTimeout(() => {
      this.#flush = undefined;
      this.lines = [...this.lines, ...this.#waiting].slice(-KEPT);
      this.#waiting = [];
    }, FLUSH_MS);
  }
}
