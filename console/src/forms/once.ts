// Keys of requests that create something, so that a request without an answer can be sent again and takes effect once.

export class Once {
  #body = '';
  #key = '';

  /** The header for a request with this body: the same for the same body. */
  header(body: unknown): { 'Idempotency-Key': string } {
    const text = JSON.stringify(body);
    if (this.#body !== text) {
      this.#body = text;
      this.#key = random();
    }
    return { 'Idempotency-Key': this.#key };
  }
}

/** `crypto.randomUUID` exists on https only. */
function random(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
