// Reads a resource with its ETag, so that a form can write it only if it was not changed meanwhile.
import { api, mustWithTag } from '../api/client';

/** `path` begins with `/frontdoor`. */
export function readTagged<T>(path: string): Promise<{ data: T; etag: string | null }> {
  // The typed client knows paths with parameters only; this one has its parameters already.
  return mustWithTag<T>((api.GET as unknown as (path: string, init: object) => Promise<{ data?: T; error?: unknown; response: Response }>)(path, {}));
}
