// Whether the latest check of a share still describes the present. A share that is ready again has no time since when it
// is, so the states that were read after the check are compared with the one at the check.
import type { Share, Tunnel } from '../api/client';
import type { Check } from './path';

interface Standing {
  share: string | undefined;
  tunnel: string | undefined;
}

export class Checks {
  #check: Check | undefined;
  #at: Standing = { share: undefined, tunnel: undefined };
  #past = false;

  /** The check; undefined once a state has changed after it. One that passed has times only, and remains. */
  present(check: Check | undefined, share: Share | undefined, tunnel: Tunnel | undefined): Check | undefined {
    if (!check) return undefined;
    const now = standingOf(share, tunnel);
    if (this.#check !== check) {
      this.#check = check;
      this.#at = now;
      this.#past = false;
    }
    this.#past ||= differ(this.#at.share, now.share) || differ(this.#at.tunnel, now.tunnel) || isOlder(check, share, tunnel);
    this.#at = { share: this.#at.share ?? now.share, tunnel: this.#at.tunnel ?? now.tunnel };
    return this.#past && !check.ok ? undefined : check;
  }
}

function standingOf(share: Share | undefined, tunnel: Tunnel | undefined): Standing {
  return {
    share: share && [share.status, share.ready, share.statusDetail?.reason].join(' '),
    tunnel: tunnel && [tunnel.status, tunnel.ready, tunnel.connection.state].join(' '),
  };
}

/** What has not been read yet differs from nothing. */
function differ(before: string | undefined, after: string | undefined): boolean {
  return before !== undefined && after !== undefined && before !== after;
}

function isOlder(check: Check, share: Share | undefined, tunnel: Tunnel | undefined): boolean {
  const changes = [share?.statusDetail?.since, share?.updatedAt, tunnel?.connection.since, tunnel?.connection.lastError?.since];
  return changes.some((change) => change !== undefined && Date.parse(change) > Date.parse(check.checkedAt));
}
