// A run of the guided start that is resumed after something of it was deleted: it goes on at the first step that misses
// something.

export type Step = 'agent' | 'tunnel' | 'share' | 'check';
export const STEPS: Step[] = ['agent', 'tunnel', 'share', 'check'];

/** What of a run was found not to exist any more. What is not read yet is not known to be gone. */
export interface Gone {
  environment: boolean;
  tunnel: boolean;
  share: boolean;
}

export interface Resumed {
  step?: Step;
  environment?: undefined;
  tunnel?: undefined;
  share?: undefined;
}

/** The changes to the run; undefined if nothing of it is gone. A share does not outlive its tunnel or its environment. */
export function resumed(step: Step, gone: Gone): Resumed | undefined {
  const missing: Step | undefined = gone.environment ? 'agent' : gone.tunnel ? 'tunnel' : gone.share ? 'share' : undefined;
  if (missing === undefined) return undefined;
  return {
    ...(STEPS.indexOf(missing) < STEPS.indexOf(step) ? { step: missing } : {}),
    ...(gone.environment ? { environment: undefined } : {}),
    ...(gone.tunnel ? { tunnel: undefined } : {}),
    share: undefined,
  };
}
