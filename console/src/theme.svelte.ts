// Light or dark: as the system says, or as chosen; and a token's colour for what is drawn on a canvas.
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'wicketgate.theme';

class ThemeState {
  chosen = $state<Theme>('system');
  #system = matchMedia('(prefers-color-scheme: dark)');
  #systemDark = $state(false);

  constructor() {
    this.#systemDark = this.#system.matches;
    this.#system.addEventListener('change', (event) => (this.#systemDark = event.matches));
    try {
      const stored = localStorage.getItem(KEY);
      if (stored === 'light' || stored === 'dark') this.choose(stored);
    } catch {
      // Without storage, the choice lasts as long as the page.
    }
  }

  get dark(): boolean {
    return this.chosen === 'system' ? this.#systemDark : this.chosen === 'dark';
  }

  choose(theme: Theme): void {
    this.chosen = theme;
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      if (theme === 'system') localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, theme);
    } catch {
      // As above.
    }
  }

  /** The present colour of a token such as `--ok`, as `rgb(…)`. Reactive: it changes with the theme. */
  colour(token: string): string {
    void this.dark;
    const probe = document.createElement('span');
    probe.style.color = `var(${token})`;
    document.body.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  }
}

export const theme = new ThemeState();
