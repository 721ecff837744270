// Charts with lines and bars: small enough to be drawn anew as SVG each time. Left is dashed with squares, right is
// solid with circles, so that they differ without colour too.

import { svg } from "./dom.js";
import { number, QUANTITIES } from "./format.js";

const MARGIN = { left: 50, right: 14, top: 12, bottom: 36 };
/** On less nothing can be drawn; a page that is being laid out has no width. */
const NARROWEST = 120;
/** A line shows at most this many points; more are averaged in groups. */
const POINTS = 150;

/** Where charts are drawn, and how large that is. Asking the browser between two drawings makes it lay out the page each time. */
const SIZES = new WeakMap();
/** What would have been drawn where there was no room, as in what is folded: it is drawn as soon as there is. */
const WAITING = new WeakMap();
const resized = new ResizeObserver((changed) => changed.forEach(({ target }) => {
  SIZES.set(target, target.getBoundingClientRect());
  WAITING.get(target)?.();
}));

function sizeOf(place) {
  if (!SIZES.has(place)) {
    SIZES.set(place, place.getBoundingClientRect());
    resized.observe(place);
  }
  return SIZES.get(place);
}

/** The size of a place; null where nothing can be drawn now, and `again` is called when something can. */
function roomOf(place, again) {
  const size = sizeOf(place);
  WAITING.delete(place);
  if (size.width >= NARROWEST) return size;
  WAITING.set(place, again);
  return null;
}

/** Round numbers that divide a range into about `count` parts. */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough) ?? 10 * unit;
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) made.push(i * step);
  return made;
}

/** `least` is the least that an axis spans, so that noise does not fill it. */
export function range(values, padding, least = 0) {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return [0, 1];
  let [low, high] = finite.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
  const room = high > low ? padding * (high - low) : 0.05 * Math.abs(high) + 0.05;
  return [low - room, high + room];
}

/** At most POINTS points of any number of items. */
function thinned(items, point) {
  const count = Math.min(items.length, POINTS);
  const made = [];
  for (let k = 0; k < count; k++) {
    const [from, to] = [k, k + 1].map((end) => Math.floor(end * items.length / count));
    const sum = [0, 0];
    for (let i = from; i < to; i++) {
      const [a, b] = point(items[i]);
      sum[0] += a;
      sum[1] += b;
    }
    made.push(sum.map((total) => total / (to - from)));
  }
  return made;
}

const mark = (name, x, y, r) => (name === "left"
  ? svg("rect", { class: `mark ${name}`, x: x - r, y: y - r, width: 2 * r, height: 2 * r })
  : svg("circle", { class: `mark ${name}`, cx: x, cy: y, r: name === "right" ? 1.1 * r : r }));

/** A key for both learners: the line and the mark that each has in the charts. */
export const lineKey = (name) => svg("svg", { class: "swatch", width: 34, height: 12, "aria-hidden": "true" },
  svg("path", { class: `line ${name}`, d: "M1 6H33" }), mark(name, 17, 6, 3.5));

/**
 * Lines over steps, or paths in a plane.
 * @typedef {{name: string, items: object[], point: (item: object) => number[], marks?: boolean}} Line
 *   `point` is where an item lies.
 * @param {{lines: Line[], x: string, y?: string, describe: string, span?: number[], cursor?: number, base?: number[],
 *   plane?: boolean, least?: number, format?: (v: number) => string}} chart
 *   `y` would lie over what `format` makes long, and is left out there; `span` is the range of x where it is known;
 *   `least` the least that an axis of losses spans; `cursor` an x to be marked; `base` the point where all paths start.
 */
export function draw(place, chart) {
  const size = roomOf(place, () => draw(place, chart));
  if (!size) return;
  const { width, height } = size;
  const { x: xLabel, y: yLabel, describe, span, cursor, base, plane, least = 0, format = (v) => number(v, 3) } = chart;
  const lines = chart.lines.map(({ name, marks, items, point }) => ({ name, marks, points: thinned(items, point) }));
  const drawing = svg("svg", { role: "img", "aria-label": describe, width, height });
  const xs = lines.flatMap((l) => l.points.map((p) => p[0]));
  const ys = lines.flatMap((l) => l.points.map((p) => p[1]));
  const [x0, x1] = span ?? range(xs, 0.12, least);
  const [y0, y1] = range(ys, plane ? 0.12 : 0.06, least);
  const x = (v) => MARGIN.left + (v - x0) / (x1 - x0) * (width - MARGIN.left - MARGIN.right);
  const y = (v) => height - MARGIN.bottom - (v - y0) / (y1 - y0) * (height - MARGIN.top - MARGIN.bottom);
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  for (const v of ticks(x0, x1, Math.min(6, width / 70))) {
    drawing.append(svg("path", { class: "grid-line", d: `M${x(v)} ${MARGIN.top}V${bottom}` }),
      svg("text", { x: x(v), y: bottom + 15, "text-anchor": "middle", text: number(v, 3) }));
  }
  for (const v of ticks(y0, y1, plane ? 6 : 4)) {
    drawing.append(svg("path", { class: "grid-line", d: `M${MARGIN.left} ${y(v)}H${right}` }),
      svg("text", { x: MARGIN.left - 6, y: y(v) + 4, "text-anchor": "end", text: format(v) }));
  }
  if (xs.length === 0) {
    drawing.append(svg("text", { class: "faint", x: width / 2, y: (MARGIN.top + bottom) / 2, "text-anchor": "middle",
      text: "nothing measured yet" }));
  }
  if (base) {
    drawing.append(svg("path", { class: "start-line", d: `M${x(base[0])} ${MARGIN.top}V${bottom}` }));
  }
  if (cursor !== undefined && cursor >= x0 && cursor <= x1) {
    drawing.append(svg("path", { class: "cursor", d: `M${x(cursor)} ${MARGIN.top}V${bottom}` }));
  }
  for (const { name, points, marks } of lines) {
    const shown = points.filter((p) => p.every(Number.isFinite));
    if (shown.length === 0) continue;
    const d = shown.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    drawing.append(svg("path", { class: `line ${name}`, d }));
    if (marks) for (const [a, b] of shown.slice(0, -1)) drawing.append(mark(name, x(a), y(b), 2));
    const [a, b] = shown.at(-1);
    drawing.append(mark(name, x(a), y(b), plane ? 6 : 4));
  }
  if (base) {
    drawing.append(mark("base", x(base[0]), y(base[1]), 6),
      svg("text", { class: "strong", x: x(base[0]) + 10, y: y(base[1]) - 6, text: "start" }));
  }
  drawing.append(svg("text", { x: (MARGIN.left + right) / 2, y: height - 4, "text-anchor": "middle", text: xLabel }));
  if (yLabel) {
    drawing.append(svg("text", { x: -(MARGIN.top + bottom) / 2, y: 11, transform: "rotate(-90)", "text-anchor": "middle",
      text: yLabel }));
  }
  place.replaceChildren(drawing);
}

/** Shares of tokens by gate: bars of 0.1, the last one open, each in the colour of its class. */
export function histogram(place, gates, name) {
  const size = roomOf(place, () => histogram(place, gates, name));
  if (!size) return;
  const { width, height } = size;
  const BINS = 10;
  const counts = new Array(BINS).fill(0);
  for (const gate of gates) counts[Math.min(BINS - 1, Math.max(0, Math.floor(gate * BINS + 1e-6)))] += 1;
  const shares = counts.map((n) => (gates.length ? n / gates.length : 0));
  const describe = gates.length
    ? `Gate histogram, ${name}: ${shares.map((s, k) => `${k / BINS} and above: ${Math.round(100 * s)} %`).join(", ")}`
    : `Gate histogram, ${name}: no token yet`;
  const drawing = svg("svg", { role: "img", "aria-label": describe, width, height });
  const left = 46;
  const bottom = height - 34;
  const x = (k) => left + k / BINS * (width - left - 12);
  const y = (share) => bottom - share * (bottom - 12);
  for (const share of [0, 0.5, 1]) {
    drawing.append(svg("path", { class: "grid-line", d: `M${left} ${y(share)}H${width - 12}` }),
      svg("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end", text: `${100 * share} %` }));
  }
  const { bounds } = QUANTITIES.gate;
  shares.forEach((share, k) => {
    const middle = (k + 0.5) / BINS;
    const colour = bounds.filter((bound) => middle >= bound).length;
    drawing.append(svg("rect", { class: `gate-${colour}`, x: x(k) + 1, y: y(share), width: x(1) - x(0) - 2,
      height: bottom - y(share) }));
    if (width > 400 || k % 2 === 0) {
      drawing.append(svg("text", { x: x(k), y: bottom + 14, "text-anchor": "middle", text: String(k / BINS) }));
    }
  });
  drawing.append(svg("text", { x: x(BINS), y: bottom + 14, "text-anchor": "end", text: "1+" }),
    svg("text", { x: (left + width - 12) / 2, y: height - 4, "text-anchor": "middle",
      text: "gate (share of the batch's tokens)" }));
  place.replaceChildren(drawing);
}
