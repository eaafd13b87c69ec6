// The present time for texts such as "3 m ago"; one timer for the whole page.
import { createSubscriber } from 'svelte/reactivity';

const subscribe = createSubscriber((update) => {
  const timer = setInterval(update, 1000);
  return () => clearInterval(timer);
});

/** Milliseconds since 1970; what reads it is drawn again every second. */
export function now(): number {
  subscribe();
  return Date.now();
}
