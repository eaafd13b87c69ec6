// How far the guided start has come. The fragment says it, so that the page can be reloaded or sent to a colleague; the
// browser keeps it, with what was typed, so that the page can be left and resumed.
import { shareDraft, tunnelDraft, type ShareDraft, type TunnelDraft } from '../../forms/drafts';
import { route } from '../../route.svelte';
import { STEPS, type Resumed, type Step } from './resume';

interface Kept {
  step?: Step;
  environment?: string;
  tunnel?: string;
  share?: string;
  tunnelDraft?: TunnelDraft;
  shareDraft?: ShareDraft;
}

export class Progress {
  #key: string;
  /** What was typed and is not created yet. */
  tunnelDraft = $state<TunnelDraft>(tunnelDraft());
  shareDraft = $state<ShareDraft>(shareDraft());

  constructor(frontdoor: string) {
    this.#key = `wicketgate.start.${frontdoor}`;
    const kept = this.#read();
    this.tunnelDraft = { ...tunnelDraft(), ...kept.tunnelDraft };
    this.shareDraft = { ...shareDraft(), ...kept.shareDraft };
    this.shareDraft.ingressPort = route.get('port') ?? this.shareDraft.ingressPort;
    this.shareDraft.ipsecTunnelId = route.get('tunnel') ?? this.shareDraft.ipsecTunnelId;
    this.shareDraft.envZId = route.get('environment') ?? this.shareDraft.envZId;
    // A link to a step with a tunnel begins another share; otherwise what was left is resumed.
    const isLink = route.get('step') !== undefined || route.get('environment') !== undefined;
    if (!isLink) route.set({ step: kept.step, environment: kept.environment, tunnel: kept.tunnel, share: kept.share }, true);
  }

  get step(): Step {
    return STEPS.find((step) => step === route.get('step')) ?? 'agent';
  }
  get environment(): string | undefined {
    return route.get('environment');
  }
  get tunnel(): string | undefined {
    return route.get('tunnel');
  }
  get share(): string | undefined {
    return route.get('share');
  }

  /** Notes what was chosen or created, or another step. */
  set(changes: { step?: Step; environment?: string | undefined; tunnel?: string | undefined; share?: string | undefined }): void {
    route.set({ ...changes, port: undefined }, changes.step === undefined);
    this.keep(changes);
  }

  /** `changes` are those that the fragment does not show yet: it changes a moment after it was set. */
  keep(changes: Kept = {}): void {
    const kept: Kept = {
      step: this.step, environment: this.environment, tunnel: this.tunnel, share: this.share, tunnelDraft: this.tunnelDraft, shareDraft: this.shareDraft,
      ...changes,
    };
    try {
      localStorage.setItem(this.#key, JSON.stringify(kept));
    } catch {
      // Without storage, the fragment alone has the progress.
    }
  }

  /** Goes on without what does not exist any more. */
  resume(changes: Resumed): void {
    if ('environment' in changes) this.shareDraft.envZId = '';
    if ('tunnel' in changes) this.shareDraft.ipsecTunnelId = '';
    route.set({ ...changes, port: undefined }, true);
    this.keep(changes);
  }

  /** Begins again, with another service. */
  reset(): void {
    try {
      localStorage.removeItem(this.#key);
    } catch {
      // As above.
    }
    this.tunnelDraft = tunnelDraft();
    this.shareDraft = shareDraft();
    route.set({ step: undefined, environment: undefined, tunnel: undefined, share: undefined, port: undefined });
  }

  #read(): Kept {
    try {
      return JSON.parse(localStorage.getItem(this.#key) ?? '{}') as Kept;
    } catch {
      return {};
    }
  }
}
