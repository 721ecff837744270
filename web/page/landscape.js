// The landscape of one learner: every trained token as a dot at (surprise at the label, entropy), by the ten thousand.
//
// The surprise is -ln p, on a logarithmic axis whose ticks say p: what the model expected and what it did not are both
// spread out. Dots are written as pixels, older ones fainter: twenty thousand take a few milliseconds, so all are drawn
// each time, the conflicts last, larger and outlined. Axes, regions and words lie above them as SVG.

import { el, svg } from "./dom.js";
import { classOf, percent, QUANTITIES } from "./format.js";
import schema from "./schema.js";

/** Where confident conflicts lie. */
export const CONFLICT = { p: [0, schema.conflict.probability], h: [0, schema.conflict.entropy] };
/** Trained tokens that stay visible. */
export const KEPT_TOKENS = 20000;
const TOP = 4;
/** Ends of the axis of surprise, in nats. */
const LEAST = 1e-3;
const MOST = 20;
/** Probabilities that the axis names, the surprising ones last. */
const TICKS = [0.999, 0.99, 0.9, 0.5, 0.1, 0.01, 1e-4, 1e-8];
const MARGIN = { left: 44, right: 10, top: 10, bottom: 40 };
const TICK_APART = 32;
const DOT = 3;
const CONFLICT_DOT = 6;
/** A dot this near to the pointer, in pixels, is meant. */
const NEAR = 7;

/** Place of a probability on the axis, from 0 (expected) to 1 (never expected). */
export function across(p) {
  const surprise = Math.min(Math.max(-Math.log(p), LEAST), MOST);
  return Math.log(surprise / LEAST) / Math.log(MOST / LEAST);
}

/** The probability at a place on the axis; its ends mean everything beyond. */
export function probability(place) {
  if (place <= 0) return 1;
  return place >= 1 ? 0 : Math.exp(-LEAST * (MOST / LEAST) ** place);
}

/** How opaque a dot is after this many newer tokens. */
const faded = (newer) => Math.exp(-2.2 * newer / KEPT_TOKENS);

export class Landscape {
  #canvas = el("canvas", { "aria-hidden": "true" });
  // Pixels are only ever put there, so the canvas needs no GPU, which could lose them.
  #context = this.#canvas.getContext("2d", { willReadFrequently: true });
  #axes;
  #summary;
  #painter;
  #frames = [];
  #pixels = null;
  #quantity = "gradient";
  #region = null;
  #onRegion;
  #index;
  #course;
  #onHover;
  #tip = el("p", { class: "tip", role: "status", hidden: true });
  /** Words in the drawing that change with every step. */
  #share = svg("text", { class: "strong", "text-anchor": "end" });
  #hint = svg("text", { class: "strong", "text-anchor": "middle",
    text: "Press Play: dots appear with the first step" });

  /** `course` is where the share of conflicts over the steps is drawn; `onHover` says the words of a token. */
  constructor(place, summary, { index, painter, onRegion, course, onHover }) {
    this.#course = course;
    this.#onHover = onHover;
    this.#index = index;
    this.#painter = painter;
    this.#onRegion = onRegion;
    this.#summary = summary;
    this.#axes = svg("svg", { class: "axes", role: "img", "aria-labelledby": summary.id });
    place.append(this.#canvas, this.#axes, this.#tip);
    this.#watchPointer();
    this.#canvas.addEventListener("contextrestored", () => this.redraw());
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
    const conflicts = [];
    const dot = (p, entropy, size, colour) => {
      const x = Math.round(across(p) * (width - size));
      const y = Math.round((1 - Math.min(entropy, TOP) / TOP) * (height - size));
      for (let row = y; row < y + size; row++) out.fill(colour, row * width + x, row * width + x + size);
      return [x, y];
    };
    out.fill(0);
    let newer = this.#frames.reduce((sum, frame) => sum + frame.document.length, 0);
    for (const frame of this.#frames) {
      newer -= frame.document.length;
      const alpha = Math.round(255 * faded(newer)) << 24;
      const { p, entropy, [this.#quantity]: shown } = frame.learners[this.#index];
      for (let i = 0; i < p.length; i++) {
        const colour = colours[classOf(this.#quantity, shown[i])];
        if (inside(p[i], entropy[i], CONFLICT)) conflicts.push([p[i], entropy[i], colour, alpha]);
        else dot(p[i], entropy[i], DOT * this.#ratio, colour | alpha);
      }
    }
    const outline = blueGreenRed(style.getPropertyValue("--ink"));
    for (const [p, entropy, colour, alpha] of conflicts) {
      const [outer, edge] = [CONFLICT_DOT * this.#ratio, this.#ratio];
      const [x, y] = dot(p, entropy, outer, outline | alpha);
      for (let row = y + edge; row < y + outer - edge; row++) {
        out.fill(colour | alpha, row * width + x + edge, row * width + x + outer - edge);
      }
    }
    this.#context.putImageData(this.#pixels, 0, 0);
  };

  /** Shares of the visible tokens in the conflict's box and in the chosen region, and the words for them. */
  #describe = () => {
    const newest = this.#frames.at(-1);
    const region = this.#region;
    let tokens = 0;
    let inRegion = 0;
    let inConflict = 0;
    for (const frame of this.#frames) {
      tokens += frame.document.length;
      inConflict += count(frame.learners[this.#index], CONFLICT);
      if (region) inRegion += count(frame.learners[this.#index], region);
    }
    const share = tokens ? inConflict / tokens : 0;
    this.#share.textContent = `confident conflicts ${newest ? percent(share) : ""}`;
    this.#hint.classList.toggle("gone", Boolean(newest));
    const { metrics } = newest?.learners[this.#index] ?? {};
    this.#summary.textContent = !newest ? "No token yet." :
      `${percent(share)} of the last ${tokens.toLocaleString("en")} tokens are confident conflicts ` +
      `(${percent(metrics.conflict_share)} in step ${newest.step}); mean gate ${metrics.gate_mean.toFixed(2)}` +
      (region ? `. In the region: ${percent(inRegion / tokens)}.` : ".");
    this.#course?.();
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

  #x(p) { return MARGIN.left + across(p) * (this.#size[0] - MARGIN.left - MARGIN.right); }
  #y(h) { return MARGIN.top + (1 - h / TOP) * (this.#size[1] - MARGIN.top - MARGIN.bottom); }

  #drawAxes = () => {
    const [width, height] = this.#size;
    if (width === 0) return;
    const x = (p) => this.#x(p);
    const y = (h) => this.#y(h);
    const parts = [];
    let last = -Infinity;
    for (const p of TICKS) {
      const text = p >= 1e-3 ? String(p) : `10⁻${"⁰¹²³⁴⁵⁶⁷⁸⁹"[-Math.round(Math.log10(p))]}`;
      parts.push(svg("path", { class: "grid-line", d: `M${x(p)} ${y(0)}V${y(TOP)}` }));
      const at = Math.max(x(p), x(1) + 12);
      if (at - last < TICK_APART) continue;
      last = at;
      parts.push(svg("text", { x: at, y: y(0) + 15, "text-anchor": "middle", text }));
    }
    for (const h of [0, 1, 2, 3, 4]) {
      parts.push(svg("path", { class: "grid-line", d: `M${x(1)} ${y(h)}H${x(0)}` }),
        svg("text", { x: x(1) - 7, y: y(h) + 4, "text-anchor": "end", text: h === TOP ? "4+" : String(h) }));
    }
    let bound = `M${x(1)} ${y(0)}`;
    for (let i = 1; i < 100; i++) {
      const p = probability(i / 100);
      bound += `L${x(p).toFixed(1)} ${y(binaryEntropy(p)).toFixed(1)}`;
    }
    bound += `L${x(0)} ${y(0)}`;
    parts.push(svg("path", { class: "impossible", d: `${bound}Z` }), svg("path", { class: "bound", d: bound }),
      svg("text", { class: "faint", x: x(0.86), y: y(0.1), "text-anchor": "middle", text: "no token can lie here" }),
      svg("rect", { class: "conflict", ...this.#box(CONFLICT) }),
      place(this.#share, x(0) - 4, y(0.5) - 6), place(this.#hint, (x(0) + x(1)) / 2, y(2)),
      svg("text", { x: (x(0) + x(1)) / 2, y: height - 6, "text-anchor": "middle",
        text: `probability ${width < 400 ? "" : "of the token in the text "}(right: surprising)` }),
      svg("text", { x: -(y(0) + y(TOP)) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle",
        text: "entropy in nats (up: unsure)" }));
    if (this.#region) parts.push(svg("rect", { class: "region", ...this.#box(this.#region) }));
    this.#axes.replaceChildren(...parts);
  };

  #box({ p, h }) {
    return { x: this.#x(p[1]), y: this.#y(h[1]), width: Math.max(1, this.#x(p[0]) - this.#x(p[1])),
      height: Math.max(1, this.#y(h[0]) - this.#y(h[1])) };
  }

  #watchPointer() {
    let from = null;
    /** The region that was there before a drag. */
    let before = null;
    /** Place in the drawing, both from 0 to 1: to the right, and up. */
    const at = (event) => {
      const { left, top } = this.#axes.getBoundingClientRect();
      const clamp = (v) => Math.min(Math.max(v, 0), 1);
      return [clamp((event.clientX - left - this.#x(1)) / (this.#x(0) - this.#x(1))),
        clamp(1 - (event.clientY - top - this.#y(TOP)) / (this.#y(0) - this.#y(TOP)))];
    };
    const region = (a, b) => {
      const [low, high] = [0, 1].map((axis) => [Math.min(a[axis], b[axis]), Math.max(a[axis], b[axis])]);
      return { p: [probability(low[1]), probability(low[0])], h: high.map((share) => TOP * share) };
    };
    this.#axes.addEventListener("pointerdown", (event) => {
      // Whether another button is let go again is not always told.
      if (event.button !== 0) return;
      from = at(event);
      before = this.#region;
      this.#point(null);
      this.#axes.setPointerCapture(event.pointerId);
    });
    this.#axes.addEventListener("pointermove", (event) => {
      if (from) this.region = region(from, at(event));
      else if (event.pointerType !== "touch") this.#point(at(event));
    });
    this.#axes.addEventListener("pointerleave", () => this.#point(null));
    this.#axes.addEventListener("pointerup", (event) => {
      if (!from) return;
      const to = at(event);
      const wide = Math.abs(to[0] - from[0]) > 0.01 || Math.abs(to[1] - from[1]) > 0.01;
      const drawn = region(from, to);
      from = null;
      // A click without a drag takes the region away, and a finger that taps reads the dot.
      this.#onRegion(wide ? drawn : null, this.#index);
      if (!wide) this.#point(to);
    });
    // A finger that scrolls the page has drawn nothing.
    this.#axes.addEventListener("pointercancel", () => {
      if (from) this.region = before;
      from = null;
    });
  }

  #pointed = null;

  /** Shows the words of the dot at a place, or none. */
  async #point(place) {
    const token = place && this.#nearest(place);
    const key = token && `${token.frame.step} ${token.i}`;
    if (key === this.#pointed) return;
    this.#pointed = key;
    if (!token) {
      this.#tip.hidden = true;
      return;
    }
    const { frame, i } = token;
    const { p, entropy, gate, gradient } = frame.learners[this.#index];
    const words = await this.#onHover({ step: frame.step, document: frame.document[i], position: frame.position[i],
      p: p[i], entropy: entropy[i], gate: gate[i], gradient: gradient[i] });
    if (key !== this.#pointed || !words) return;
    this.#tip.replaceChildren(...words);
    this.#tip.hidden = false;
    const [width] = this.#size;
    this.#tip.style.left = `${Math.max(4, Math.min(this.#x(p[i]) - 120, width - 268))}px`;
    const y = this.#y(Math.min(entropy[i], TOP));
    this.#tip.style.top = entropy[i] > TOP / 2 ? `${y + 12}px` : "";
    this.#tip.style.bottom = entropy[i] > TOP / 2 ? "" : `${this.#size[1] - y + 12}px`;
  }

  /** The newest dot near a place; a conflict before any other. */
  #nearest([right, up]) {
    const [width, height] = [this.#x(0) - this.#x(1), this.#y(0) - this.#y(TOP)];
    let found = null;
    let least = NEAR * NEAR;
    for (let k = this.#frames.length - 1; k >= 0; k--) {
      const frame = this.#frames[k];
      const { p, entropy } = frame.learners[this.#index];
      for (let i = 0; i < p.length; i++) {
        const dy = (Math.min(entropy[i], TOP) / TOP - up) * height;
        if (dy > NEAR || dy < -NEAR) continue;
        const dx = (across(p[i]) - right) * width;
        const distance = (dx * dx + dy * dy) * (inside(p[i], entropy[i], CONFLICT) ? 0.5 : 1);
        if (distance < least) {
          least = distance;
          found = { frame, i };
        }
      }
    }
    return found;
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

const binaryEntropy = (p) => -p * Math.log(p) - (1 - p) * Math.log1p(-p);

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
