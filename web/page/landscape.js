// The landscape of one learner: every trained token as a dot at (probability of the label, entropy), by the ten
// thousand.
//
// Dots are written as pixels, older ones fainter: twenty thousand take a few milliseconds, so all are drawn each
// time. Axes, regions and words lie above them as SVG.

import { el, svg } from "./dom.js";
import { classOf, percent, QUANTITIES } from "./format.js";
import schema from "./schema.js";

/** Where confident conflicts lie. */
export const CONFLICT = { p: [0, schema.conflict.probability], h: [0, schema.conflict.entropy] };
/** Trained tokens that stay visible. */
export const KEPT_TOKENS = 20000;
const TOP = 4;
const MARGIN = { left: 44, right: 10, top: 10, bottom: 40 };
const DOT = 3;

/** How opaque a dot is after this many newer tokens. */
const faded = (newer) => Math.exp(-2.2 * newer / KEPT_TOKENS);

export class Landscape {
  #canvas = el("canvas", { "aria-hidden": "true" });
  #axes;
  #summary;
  #painter;
  #frames = [];
  #pixels = null;
  #quantity = "gradient";
  #region = null;
  #onRegion;
  #index;
  /** Words in the drawing that change with every step. */
  #share = svg("text", { class: "strong" });
  #hint = svg("text", { class: "strong", "text-anchor": "middle",
    text: "Press Play: dots appear with the first step" });

  constructor(place, summary, { index, painter, onRegion }) {
    this.#index = index;
    this.#painter = painter;
    this.#onRegion = onRegion;
    this.#summary = summary;
    this.#axes = svg("svg", { class: "axes", role: "img", "aria-labelledby": summary.id });
    place.append(this.#canvas, this.#axes);
    this.#watchPointer();
    new ResizeObserver(([{ contentRect }]) => this.#resize(contentRect.width, contentRect.height)).observe(place);
  }

  /** A step that has just been made; `redraw` shows it. */
  append(frame) {
    this.#frames.push(frame);
    let tokens = 0;
    let first = this.#frames.length;
    while (first > 0 && tokens < KEPT_TOKENS) tokens += this.#frames[--first].document.length;
    this.#frames.splice(0, first);
  }

  /** These steps and no others, oldest first. */
  show(frames) {
    this.#frames = frames.slice();
    this.redraw();
  }

  set quantity(quantity) {
    this.#quantity = quantity;
    this.redraw();
  }

  get frames() { return this.#frames; }

  set region(region) {
    this.#region = region;
    this.#painter.ask(this.#drawAxes, this.#describe);
  }

  redraw() {
    this.#painter.ask(this.#draw, this.#describe);
  }

  #draw = () => {
    if (!this.#pixels) return;
    const { width, height } = this.#pixels;
    const out = new Uint32Array(this.#pixels.data.buffer);
    const style = getComputedStyle(this.#canvas);
    const { scale } = QUANTITIES[this.#quantity];
    const colours = [0, 1, 2, 3, 4].map((k) => blueGreenRed(style.getPropertyValue(`--${scale}-${k}`)));
    const size = DOT * this.#ratio;
    out.fill(0);
    let newer = this.#frames.reduce((sum, frame) => sum + frame.document.length, 0);
    for (const frame of this.#frames) {
      newer -= frame.document.length;
      const alpha = Math.round(255 * faded(newer)) << 24;
      const { p, entropy, [this.#quantity]: shown } = frame.learners[this.#index];
      for (let i = 0; i < p.length; i++) {
        const x = Math.round(p[i] * (width - size));
        const y = Math.round((1 - Math.min(entropy[i], TOP) / TOP) * (height - size));
        const colour = colours[classOf(this.#quantity, shown[i])] | alpha;
        for (let row = y; row < y + size; row++) out.fill(colour, row * width + x, row * width + x + size);
      }
    }
    this.#canvas.getContext("2d").putImageData(this.#pixels, 0, 0);
  };

  /** Shares of the visible tokens in the conflict's box and in the chosen region, and the words for them. */
  #describe = () => {
    const newest = this.#frames.at(-1);
    const region = this.#region;
    let tokens = 0;
    let inRegion = 0;
    for (const frame of this.#frames) {
      tokens += frame.document.length;
      if (region) inRegion += count(frame.learners[this.#index], region);
    }
    const conflicts = newest ? count(newest.learners[this.#index], CONFLICT) / newest.document.length : 0;
    this.#share.textContent = `confident conflicts ${newest ? percent(conflicts) : ""}`;
    this.#hint.classList.toggle("gone", Boolean(newest));
    const { metrics } = newest?.learners[this.#index] ?? {};
    this.#summary.textContent = !newest ? "No token yet." :
      `Step ${newest.step}: ${percent(conflicts)} of ${newest.document.length} tokens are confident conflicts; ` +
      `mean gate ${metrics.gate_mean.toFixed(2)}. Shown: the last ${tokens.toLocaleString("en")} tokens` +
      (region ? `, ${percent(inRegion / tokens)} of them in the region.` : ".");
  };

  #ratio = 1;
  #size = [0, 0];

  #resize(width, height) {
    if (width === this.#size[0] && height === this.#size[1]) return;
    this.#size = [width, height];
    this.#ratio = devicePixelRatio >= 1.5 ? 2 : 1;
    this.#canvas.width = Math.max(2 * DOT, Math.round((width - MARGIN.left - MARGIN.right) * this.#ratio));
    this.#canvas.height = Math.max(2 * DOT, Math.round((height - MARGIN.top - MARGIN.bottom) * this.#ratio));
    this.#pixels = new ImageData(this.#canvas.width, this.#canvas.height);
    this.redraw();
    this.#painter.ask(this.#drawAxes);
  }

  #x(p) { return MARGIN.left + p * (this.#size[0] - MARGIN.left - MARGIN.right); }
  #y(h) { return MARGIN.top + (1 - h / TOP) * (this.#size[1] - MARGIN.top - MARGIN.bottom); }

  #drawAxes = () => {
    const [width, height] = this.#size;
    if (width === 0) return;
    const x = (p) => this.#x(p);
    const y = (h) => this.#y(h);
    const parts = [];
    for (const p of [0, 0.25, 0.5, 0.75, 1]) {
      parts.push(svg("path", { class: "grid-line", d: `M${x(p)} ${y(0)}V${y(TOP)}` }),
        svg("text", { x: x(p), y: y(0) + 15, "text-anchor": p === 1 ? "end" : "middle", text: String(p) }));
    }
    for (const h of [0, 1, 2, 3, 4]) {
      parts.push(svg("path", { class: "grid-line", d: `M${x(0)} ${y(h)}H${x(1)}` }),
        svg("text", { x: x(0) - 7, y: y(h) + 4, "text-anchor": "end", text: h === TOP ? "4+" : String(h) }));
    }
    let bound = `M${x(0)} ${y(0)}`;
    for (let i = 1; i < 100; i++) bound += `L${x(i / 100).toFixed(1)} ${y(binaryEntropy(i / 100)).toFixed(1)}`;
    bound += `L${x(1)} ${y(0)}`;
    parts.push(svg("path", { class: "impossible", d: `${bound}Z` }), svg("path", { class: "bound", d: bound }),
      svg("text", { class: "faint", x: x(0.5), y: y(0.2), "text-anchor": "middle", text: "no token can lie here" }),
      svg("rect", { class: "conflict", ...this.#box(CONFLICT) }),
      place(this.#share, x(0) + 5, y(0.5) - 6), place(this.#hint, x(0.5), y(2)),
      svg("text", { x: (x(0) + x(1)) / 2, y: height - 6, "text-anchor": "middle",
        text: `probability ${width < 400 ? "" : "of the token in the text "}(right: expected)` }),
      svg("text", { x: -(y(0) + y(TOP)) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle",
        text: "entropy in nats (up: unsure)" }));
    if (this.#region) parts.push(svg("rect", { class: "region", ...this.#box(this.#region) }));
    this.#axes.replaceChildren(...parts);
  };

  #box({ p, h }) {
    return { x: this.#x(p[0]), y: this.#y(h[1]), width: Math.max(1, this.#x(p[1]) - this.#x(p[0])),
      height: Math.max(1, this.#y(h[0]) - this.#y(h[1])) };
  }

  #watchPointer() {
    let from = null;
    const at = (event) => {
      const { left, top } = this.#axes.getBoundingClientRect();
      const clamp = (v, high) => Math.min(Math.max(v, 0), high);
      return [clamp((event.clientX - left - this.#x(0)) / (this.#x(1) - this.#x(0)), 1),
        clamp(TOP * (1 - (event.clientY - top - this.#y(TOP)) / (this.#y(0) - this.#y(TOP))), TOP)];
    };
    const between = (a, b) => [Math.min(a, b), Math.max(a, b)];
    const region = (a, b) => ({ p: between(a[0], b[0]), h: between(a[1], b[1]) });
    this.#axes.addEventListener("pointerdown", (event) => {
      from = at(event);
      this.#axes.setPointerCapture(event.pointerId);
    });
    this.#axes.addEventListener("pointermove", (event) => {
      if (from) this.region = region(from, at(event));
    });
    this.#axes.addEventListener("pointerup", (event) => {
      if (!from) return;
      const drawn = region(from, at(event));
      from = null;
      // A click without a drag takes the region away.
      const wide = drawn.p[1] - drawn.p[0] > 0.01 || drawn.h[1] - drawn.h[0] > 0.04;
      this.#onRegion(wide ? drawn : null, this.#index);
    });
    this.#axes.addEventListener("pointercancel", () => { from = null; });
  }
}

function place(text, x, y) {
  text.setAttribute("x", x);
  text.setAttribute("y", y);
  return text;
}

/** `#rrggbb` in the order of bytes of a pixel, without alpha. */
function blueGreenRed(colour) {
  const rgb = Number.parseInt(colour.trim().slice(1), 16);
  return (rgb & 255) << 16 | (rgb & 0xff00) | rgb >> 16;
}

const binaryEntropy = (p) => -p * Math.log(p) - (1 - p) * Math.log(1 - p);

const inside = (p, h, region) => p >= region.p[0] && (p < region.p[1] || region.p[1] >= 1)
  && h >= region.h[0] && (h < region.h[1] || region.h[1] >= TOP);

function count({ p, entropy }, region) {
  let found = 0;
  for (let i = 0; i < p.length; i++) if (inside(p[i], entropy[i], region)) found += 1;
  return found;
}

/** Tokens of these steps in the region, newest first; `total` counts also those beyond `most`. */
export function tokensIn(frames, index, region, most) {
  const tokens = [];
  let total = 0;
  for (const frame of frames.slice().reverse()) {
    const { p, entropy, gate, gradient } = frame.learners[index];
    for (let i = 0; i < p.length; i++) {
      if (!inside(p[i], entropy[i], region)) continue;
      total += 1;
      if (tokens.length < most) {
        tokens.push({ step: frame.step, document: frame.document[i], position: frame.position[i],
          p: p[i], entropy: entropy[i], gate: gate[i], gradient: gradient[i] });
      }
    }
  }
  return { tokens, total };
}
