// A list on screen: filters, order and page from the fragment (or from the part that has the list), read from the API, live.
import { SvelteURLSearchParams } from 'svelte/reactivity';
import { lists, type Filter, type ListName } from '../generated/filters';
import { route, type Parameters } from '../route.svelte';
import { list, type Page } from './client';
import { loaded, type Loaded } from './loaded.svelte';
import type { Change, EventType } from './live.svelte';

/** Where a list keeps its filters, order and page. */
export type ListState = { readonly parameters: URLSearchParams; set(changes: Parameters, replace?: boolean): void };

export const SIZES = [25, 50, 100, 250];
const SIZE = 50;

export type Paged<T> = Loaded<Page<T>> & {
  readonly state: ListState;
  readonly filters: Filter[];
  readonly tags: boolean;
  readonly sort: string;
  /** From 1. */
  readonly page: number;
  readonly size: number;
  /** The query of the API, as it was last sent. */
  readonly query: URLSearchParams;
  /** Whether a filter is set, apart from the fixed ones. */
  readonly filtered: boolean;
};

/** State of a list that is part of a page: not in the fragment. */
export function ownState(): ListState {
  const parameters = new SvelteURLSearchParams();
  return {
    parameters,
    set(changes) {
      for (const [name, value] of Object.entries(changes)) {
        parameters.delete(name);
        if (value === undefined || value === null || value === '') continue;
        for (const each of Array.isArray(value) ? value : [value]) parameters.append(name, String(each));
      }
    },
  };
}

/** Reads a list. Call it while a component is created. */
export function paged<T>(
  name: ListName,
  path: () => string | undefined,
  options: {
    state?: ListState;
    /** Filters that the reader cannot take off. */
    fixed?: () => Parameters;
    sort?: string;
    size?: number;
    on?: EventType[];
    when?: (change: Change) => boolean;
    everySeconds?: number;
    learn?: (rows: T[]) => void;
  } = {},
): Paged<T> {
  const { filters, tags } = lists[name];
  const state = options.state ?? route;
  const names = new Set(filters.map((filter) => filter.property));

  const page = $derived(Math.max(1, Math.trunc(Number(state.parameters.get('page') ?? 1)) || 1));
  const size = $derived(Math.min(1000, Math.max(1, Math.trunc(Number(state.parameters.get('size') ?? options.size ?? SIZE)) || SIZE)));
  const sort = $derived(state.parameters.get('sort') ?? options.sort ?? '');
  const filtered = $derived([...state.parameters.keys()].some((key) => isFilter(key)));
  const query = $derived.by(() => {
    const built = new URLSearchParams();
    for (const [key, value] of state.parameters) if (isFilter(key)) built.append(key, value);
    for (const [key, value] of Object.entries(options.fixed?.() ?? {})) {
      for (const each of Array.isArray(value) ? value : [value]) if (each !== undefined && each !== null) built.append(key, String(each));
    }
    if (sort) built.append('sort', sort);
    built.append('page', String(page - 1));
    built.append('size', String(size));
    return built;
  });

  function isFilter(key: string): boolean {
    return names.has(key) || (tags && key.startsWith('tag.'));
  }

  const rows = loaded<Page<T>>(
    (signal) => {
      const target = path();
      const sent = query;
      return target === undefined ? undefined : read(target, sent, signal);
    },
    {
      ...(options.on ? { on: options.on } : {}),
      ...(options.when ? { when: options.when } : {}),
      ...(options.everySeconds ? { everySeconds: options.everySeconds } : {}),
    },
  );

  async function read(target: string, sent: URLSearchParams, signal: AbortSignal): Promise<Page<T>> {
    const found = await list<T>(target, sent, signal);
    options.learn?.(found.content);
    // Rows were deleted meanwhile, or the address is an old one.
    if (found.content.length === 0 && found.totalPages > 0 && page > found.totalPages) state.set({ page: found.totalPages > 1 ? found.totalPages : undefined }, true);
    return found;
  }

  return {
    get data() { return rows.data; },
    get failure() { return rows.failure; },
    get loading() { return rows.loading; },
    refresh: () => rows.refresh(),
    state,
    filters,
    tags,
    get sort() { return sort; },
    get page() { return page; },
    get size() { return size; },
    get query() { return query; },
    get filtered() { return filtered; },
  };
}
