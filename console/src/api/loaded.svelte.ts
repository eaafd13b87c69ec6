// Data of a page: read when what it depends on changes, again after events, and again at an interval.
import { onDestroy } from 'svelte';
import { isAsked, markBackground } from './background';
import { asFailure, type Failure } from './client';
import { live, type Change, type EventType } from './live.svelte';
import { session } from './session.svelte';

/** Events within this time cause one reading. */
const DEBOUNCE_MS = 300;
/** A steady stream of events does not put a reading off for longer. */
const PATIENCE_MS = 1500;
/** While there are no events, data that follows them is read at this interval. */
const LOST_MS = 15_000;

export type Loaded<T> = {
  readonly data: T | undefined;
  readonly failure: Failure | undefined;
  readonly loading: boolean;
  /** Reads again now. */
  refresh(): Promise<void>;
};

/**
 * Reads with `read` and keeps the last good answer. Call it while a component is created.
 * `read` is called again when a reactive value changes that it uses before its first `await`.
 */
export function loaded<T>(
  read: (signal: AbortSignal) => Promise<T> | undefined,
  options: {
    on?: EventType[];
    when?: (change: Change) => boolean;
    everySeconds?: number;
    /** Events cause a reading this long after the last one at the earliest, for readings of many calls. */
    restMs?: number;
  } = {},
): Loaded<T> {
  let data = $state.raw<T | undefined>();
  let failure = $state.raw<Failure | undefined>();
  let loading = $state(true);
  let controller: AbortController | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let waitingSince: number | undefined;
  let readAt = 0;

  async function run(asked: boolean): Promise<void> {
    controller?.abort();
    const mine = new AbortController();
    if (!asked) markBackground(mine.signal);
    controller = mine;
    clearTimeout(timer);
    waitingSince = undefined;
    readAt = Date.now();
    const answer = read(mine.signal);
    if (!answer) {
      loading = false;
      return;
    }
    loading = true;
    try {
      const found = await answer;
      if (controller !== mine) return;
      data = found;
      failure = undefined;
    } catch (thrown) {
      if (controller !== mine || mine.signal.aborted) return;
      failure = asFailure(thrown);
    }
    loading = false;
  }

  function soon(): void {
    waitingSince ??= Date.now();
    clearTimeout(timer);
    const soonest = Math.max(0, Math.min(DEBOUNCE_MS, waitingSince + PATIENCE_MS - Date.now()));
    timer = setTimeout(() => void run(false), Math.max(soonest, readAt + (options.restMs ?? 0) - Date.now()));
  }

  $effect(() => {
    void run(isAsked());
  });

  const unsubscribe = live.subscribe((change) => {
    if (change === 'reset') soon();
    else if (options.on?.includes(change.type) && (options.when?.(change) ?? true)) soon();
  });
  const quietly = () => !document.hidden && !session.expired && void run(false);
  const interval = options.everySeconds ? setInterval(quietly, options.everySeconds * 1000) : undefined;
  const unheard = options.on && !(options.everySeconds && options.everySeconds * 1000 <= LOST_MS) ? setInterval(() => live.state === 'lost' && quietly(), LOST_MS) : undefined;
  onDestroy(() => {
    unsubscribe();
    clearInterval(interval);
    clearInterval(unheard);
    clearTimeout(timer);
    controller?.abort();
    controller = undefined;
  });

  return {
    get data() { return data; },
    get failure() { return failure; },
    get loading() { return loading; },
    refresh: () => run(true),
  };
}
