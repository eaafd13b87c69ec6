// What the history of a tunnel's connection tells beyond its changes.
import type { Schemas } from '../../api/client';

/** Whether the device has never been connected: every change is kept, and none is to UP. */
export function wasNeverUp(changes: Pick<Schemas['ConnectionChange'], 'number' | 'state'>[]): boolean {
  const [first] = changes.toSorted((a, b) => a.number - b.number);
  return (first === undefined || first.number === 1) && changes.every((change) => change.state !== 'UP');
}
