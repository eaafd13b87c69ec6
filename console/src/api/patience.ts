// Requests that the server refuses for their rate: it has done nothing, and says when the same request may be sent again.

/** How long a request is sent again, in seconds. */
export const PATIENCE_S = 60;

/** Seconds until the request may be sent again; `undefined` if it was not refused for its rate. With 0 there would be no bound. */
export function pause(response: { status: number; headers: { get(name: string): string | null } }): number | undefined {
  const seconds = Number(response.headers.get('Retry-After') ?? Number.NaN);
  return response.status === 429 && Number.isFinite(seconds) ? Math.max(1, seconds) : undefined;
}

/** Waits; throws the signal's reason if it is aborted before. */
export async function elapsed(seconds: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, seconds * 1000);
    signal.addEventListener('abort', abort, { once: true });
  });
}
