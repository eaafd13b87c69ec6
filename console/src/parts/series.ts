// Series for charts: what the metrics of a share or tunnel become before they are drawn.
import type { Metrics } from '../api/client';

/** Bytes in a second are shown as a rate in bits. */
export type Unit = 'rate' | 'count';

export interface Line {
  label: string;
  /** One a time; null where nothing is known. */
  values: (number | null)[];
  /** What the legend shows beside the value at the cursor. */
  summary: 'mean' | 'total';
}

export interface Series {
  /** Beginning of each sample, in Unix seconds. */
  times: number[];
  /** Length of a sample in seconds. */
  step: number;
  lines: Line[];
}

export const DURATIONS = ['15m', '1h', '6h', '24h', '7d', '30d'] as const;
export type Duration = (typeof DURATIONS)[number];
export const DURATION_NAMES: Record<Duration, string> = {
  '15m': '15 minutes', '1h': '1 hour', '6h': '6 hours', '24h': '24 hours', '7d': '7 days', '30d': '30 days',
};

/** How often the metrics are read again, in milliseconds: about once a sample, and not more often than every 2 s. */
export function refreshOf(step: number): number {
  return Math.min(60, Math.max(2, step / 2)) * 1000;
}

/** Bytes each second, in both directions. */
export function traffic(metrics: Metrics, now: number): Series {
  const seconds = lengths(metrics, now);
  return {
    ...axis(metrics),
    lines: [
      { label: 'From the site', values: metrics.samples.map((one, i) => one.rx / seconds[i]!), summary: 'mean' },
      { label: 'To the site', values: metrics.samples.map((one, i) => one.tx / seconds[i]!), summary: 'mean' },
    ],
  };
}

/** Connections that were opened, and the most that were open at one time. */
export function connections(metrics: Metrics): Series {
  return {
    ...axis(metrics),
    lines: [
      { label: 'Open at one time', values: metrics.samples.map((one) => one.active), summary: 'mean' },
      { label: 'Opened', values: metrics.samples.map((one) => one.connections), summary: 'total' },
    ],
  };
}

/** Reasons that have a series of their own; the rest is added up. */
const REASONS = 3;

/** Connections that were not served, by their reasons: the most frequent ones first. */
export function failures(metrics: Metrics): Series {
  const totals = new Map<string, number>();
  for (const sample of metrics.samples) {
    for (const [reason, count] of Object.entries(sample.failuresByReason)) totals.set(reason, (totals.get(reason) ?? 0) + count);
  }
  const named = [...totals].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, REASONS).map(([reason]) => reason);
  const lines: Line[] = named.map((label) => ({ label, values: metrics.samples.map((one) => one.failuresByReason[label] ?? 0), summary: 'total' }));
  // Other reasons, and failures that were counted before reasons were kept.
  const rest = metrics.samples.map((one) => named.reduce((left, reason) => left - (one.failuresByReason[reason] ?? 0), one.failures));
  if (named.length === 0 || total(rest) > 0) lines.push({ label: named.length === 0 ? 'Not served' : 'other reasons', values: rest, summary: 'total' });
  return { ...axis(metrics), lines };
}

/** Each line on top of those after it: what stacked bars are drawn from, the tallest first. */
export function stacked(lines: Line[]): (number | null)[][] {
  const above: number[] = [];
  return lines.toReversed().map((line) => line.values.map((value, i) => (above[i] = (above[i] ?? 0) + (value ?? 0)))).toReversed();
}

/** Connections that are open now, as far as the newest sample says. */
export function openNow(metrics: Metrics | undefined): number | undefined {
  return metrics?.samples.at(-1)?.active;
}

export function total(values: (number | null)[]): number {
  return values.reduce<number>((sum, value) => sum + (value ?? 0), 0);
}

export function mean(values: (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : total(known) / known.length;
}

export function peak(values: (number | null)[]): number | null {
  return values.reduce<number | null>((top, value) => (value !== null && (top === null || value > top) ? value : top), null);
}

/** Without the samples that ended before there was anything to measure, which the API has as zeros. */
export function since(series: Series, beginning: string | undefined): Series {
  const begun = beginning === undefined ? -Infinity : Date.parse(beginning) / 1000;
  const known = (values: (number | null)[]) => values.map((value, i) => (series.times[i]! + series.step <= begun ? null : value));
  return { ...series, lines: series.lines.map((line) => ({ ...line, values: known(line.values) })) };
}

/** Whether nothing was measured but zeros. */
export function isIdle(series: Series): boolean {
  return series.lines.every((line) => line.values.every((value) => !value));
}

function axis(metrics: Metrics): { times: number[]; step: number } {
  return { times: metrics.samples.map((one) => one.timestamp / 1000), step: metrics.step };
}

/** The seconds that each sample covers. The newest one is still in progress and counts its elapsed part. */
function lengths(metrics: Metrics, now: number): number[] {
  return metrics.samples.map((one) => Math.min(metrics.step, Math.max(1, (now - one.timestamp) / 1000)));
}
