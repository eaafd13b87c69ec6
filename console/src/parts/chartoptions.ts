// How uPlot draws the charts of the console. Lines differ in dash as well as in colour, bars in lightness.
import type uPlot from 'uplot';
import uPlotClass from 'uplot';
import { theme } from '../theme.svelte';
import { axisTime, quantity } from './chartformat';
import type { Line, Unit } from './series';

const HEIGHT = 170;
const FONT = '11px system-ui, sans-serif';

export interface Look {
  unit: Unit;
  /** For numbers that are counted in each sample. */
  bars: boolean;
  /** All values are zero: an axis of values would say nothing. */
  idle: boolean;
  width: number;
}

/** Options for `lines`; `moved` is told the sample under the cursor. */
export function optionsOf(lines: Line[], { unit, bars, idle, width }: Look, moved: (index: number | null) => void): uPlot.Options {
  const grid = { stroke: () => theme.colour('--line'), width: 1 };
  const axis = { stroke: () => theme.colour('--ink-3'), font: FONT, grid, ticks: { ...grid, size: 4 } };
  return {
    width: Math.max(width, 120),
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: 'console' }, points: { size: 7 } },
    scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, room(high, unit)] } },
    axes: [
      { ...axis, size: 32, space: 70, values: (_plot, times, _index, _space, step) => times.map((time) => axisTime(time, step)) },
      { ...axis, size: 68, values: (_plot, values) => values.map((value) => (idle && value > 0 ? '' : quantity(value, unit))), incrs: unit === 'count' ? WHOLE : RATES },
    ],
    series: [{}, ...lines.map((line, i) => drawn(line, i, bars))],
    hooks: { setCursor: [(plot) => moved(plot.cursor.idx ?? null)] },
  };
}

/** Steps of an axis of whole numbers, and of one of bytes. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7];
const RATES = Array.from({ length: 13 }, (_, power) => [1, 2, 4, 5].map((digit) => (digit * 10 ** power) / 8)).flat();

function drawn(line: Line, index: number, bars: boolean): uPlot.Series {
  const stroke = () => theme.colour(`--${bars ? 'bar' : 'series'}-${index + 1}`);
  if (bars) return { label: line.label, stroke, fill: stroke, points: { show: false }, paths: uPlotClass.paths.bars?.({ size: [0.8, 24] }) };
  return { label: line.label, stroke, width: 2, dash: index === 0 ? undefined : [6, 4], points: { show: false }, spanGaps: false };
}

/** The top of the axis: above the highest value, and never zero. */
function room(high: number | null, unit: Unit): number {
  const least = unit === 'count' ? 4 : 125;
  return Math.max(least, (high ?? 0) * 1.15);
}

