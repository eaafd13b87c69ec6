// The fragment as the state of the page: `#/shares/shr-…?status=ERROR&page=2` is a page, an id and parameters.
export type Parameters = Record<string, string | string[] | number | boolean | undefined | null>;

class Route {
  /** The first word of the path; `overview` if there is none. */
  page = $state('overview');
  /** The second word: which tunnel, share, … */
  id = $state<string | undefined>();
  parameters = $state.raw(new URLSearchParams());

  constructor() {
    this.#read();
    addEventListener('hashchange', () => this.#read());
  }

  #read(): void {
    const fragment = location.hash.replace(/^#\/?/, '');
    const [path = '', query = ''] = fragment.split(/\?(.*)/s);
    const [page, id] = path.split('/').map(decode);
    this.page = page || 'overview';
    this.id = id || undefined;
    if (query !== this.parameters.toString()) this.parameters = new URLSearchParams(query);
  }

  get(name: string): string | undefined {
    return this.parameters.get(name) ?? undefined;
  }

  all(name: string): string[] {
    return this.parameters.getAll(name);
  }

  /** The Frontdoor that the fragment names. */
  get frontdoor(): string | undefined {
    return this.get('frontdoor');
  }

  /** This page, as what follows the `#` of its address. */
  get here(): string {
    return address(this.page, this.id, this.parameters).slice(1);
  }

  /** The address of another page. It stays in the same Frontdoor. */
  href(page: string, id?: string, parameters: Parameters = {}): string {
    const query = new URLSearchParams();
    const { frontdoor = this.frontdoor, ...rest } = parameters;
    append(query, { frontdoor, ...rest });
    return address(page, id, query);
  }

  go(page: string, id?: string, parameters: Parameters = {}): void {
    location.hash = this.href(page, id, parameters);
  }

  /** Changes parameters of this page; `undefined` removes one. `replace` makes no entry in the history. */
  set(changes: Parameters, replace = false): void {
    const query = new URLSearchParams(this.parameters);
    for (const name of Object.keys(changes)) query.delete(name);
    append(query, changes);
    const target = address(this.page, this.id, query);
    if (target === location.hash) return;
    if (replace) {
      history.replaceState(null, '', target);
      this.#read();
    } else {
      location.hash = target;
    }
  }
}

function append(query: URLSearchParams, parameters: Parameters): void {
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === null || value === '') continue;
    for (const each of Array.isArray(value) ? value : [value]) query.append(name, String(each));
  }
}

function address(page: string, id: string | undefined, query: URLSearchParams): string {
  const text = query.toString();
  return `#/${page}${id ? `/${encodeURIComponent(id)}` : ''}${text ? `?${text}` : ''}`;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = new Route();
