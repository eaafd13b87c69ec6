// Values and times of charts for people.
import { count, rate, shortTime, time } from '../format';
import type { Unit } from './series';

/** A value with its unit; a dash where nothing is known. */
export function quantity(value: number | null, unit: Unit): string {
  if (unit === 'rate') return rate(value);
  return count(value === null ? null : Math.round(value * 10) / 10);
}

/** A time on the axis, as short as the distance of its marks allows. */
export function axisTime(seconds: number, step: number): string {
  const [day, clock] = time(seconds * 1000).split(' ') as [string, string];
  if (step >= 86_400) return day.slice(5);
  if (step < 60) return clock;
  return clock.startsWith('00:00') ? day.slice(5) : clock.slice(0, 5);
}

export function exact(seconds: number): string {
  return time(seconds * 1000);
}

/** Without the date, today. */
export function brief(seconds: number): string {
  return shortTime(new Date(seconds * 1000));
}
