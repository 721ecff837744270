// The race: held-out losses of both learners, against one another and over steps, as charts and as a table.

import { draw, lineKey } from "./charts.js";
import { $, el, SIDES } from "./dom.js";
import { change, loss, number } from "./format.js";

/** Losses that differ by less than this look alike. */
const LEAST_SPAN = 0.2;
/** A perplexity beyond this says nothing any more. */
const BEYOND = 1e9;

const perplexity = ({ perplexity: value }) => (value < BEYOND ? number(value) : "beyond measure");

/** Draws everything up to the step that the timeline shows. */
export class Race {
  #timeline;
  #names = ["", ""];

  constructor(timeline) {
    this.#timeline = timeline;
  }

  /** What the learners' objectives were. */
  key = () => {
    const names = this.#names = SIDES.map((side) => this.#timeline.recording.nameAt(side, this.#timeline.step));
    const keys = SIDES.map((side, i) => el("span", {}, lineKey(side), ` ${side}: ${names[i]} `));
    for (const place of document.querySelectorAll(".key.lines")) place.replaceChildren(...keys);
  };

  #evaluations() { return this.#timeline.evaluations; }

  #describe(what, i) {
    const now = this.#evaluations().at(-1);
    if (!now) return `${what}: nothing measured yet`;
    const side = (k) => `${SIDES[k]} (${this.#names[k]}) ${loss(now.learners[k][i].loss)}`;
    return `${what} in nats per token at step ${now.step}: ${side(0)}, ${side(1)}`;
  }

  plane = () => {
    const shown = this.#evaluations();
    const first = shown[0]?.learners[0];
    const wrong = this.#timeline.isWrong;
    const point = ({ target, general, wrong: taught }) => (wrong ? [target.loss, taught.loss] : [general.loss, target.loss]);
    const lines = SIDES.map((name, i) => ({ name, marks: true, items: shown,
      point: ({ learners }) => point(learners[i]) }));
    $("race-about").textContent = wrong ? "Both learners are examined on the right answers (the truth, which the model knew), on the wrong " +
      "answers that are taught, and on general text (like what the model had read before)."
      : "Both learners are examined on text that neither trains on: the target (like the text being learned) and general text " +
        "(like what the model had read before).";
    $("plane-name").textContent = wrong ? "Truth against the wrong" : "Learning against forgetting";
    $("plane-best").textContent = wrong ? "best is to stay at the start: nothing wrong learned, no truth lost"
      : "best is straight down: learned, and nothing forgotten";
    $("target-name").textContent = wrong ? "Loss on the truth" : "Target loss";
    $("target-way").textContent = wrong ? "rises while the truth is lost" : "falls while learning";
    // The start is that of both learners; a restored run starts apart.
    const same = first && shown[0].step === 0;
    draw($("race-plane"), { lines, plane: true, least: LEAST_SPAN, base: same ? point(first) : undefined,
      x: wrong ? "truth, nats/token (right: lost)" : "general loss, nats/token (right: forgotten)",
      y: wrong ? "wrong answers, nats/token (down: learned)" : "target loss, nats/token (down: learned)",
      describe: wrong ? `${this.#describe("Loss on the truth", "target")}. ${this.#describe("Loss on the wrong answers", "wrong")}`
        : `${this.#describe("Target loss", "target")}. ${this.#describe("General loss", "general")}` });
  };

  #overSteps(place, which, label) {
    const { recording, isLive, step } = this.#timeline;
    const lines = SIDES.map((name, i) => ({ name, marks: true, items: recording.evaluations,
      point: (e) => [e.step, e.learners[i][which].loss] }));
    draw($(place), { lines, x: "step", y: "nats/token", least: LEAST_SPAN, span: [0, recording.steps || 1],
      cursor: isLive ? undefined : step, describe: this.#describe(label, which) });
  }

  target = () => this.#overSteps("race-target", "target", this.#timeline.isWrong ? "Loss on the truth" : "Target loss");
  general = () => this.#overSteps("race-general", "general", "General loss");

  training = () => {
    const { recording, isLive, step, index } = this.#timeline;
    const lines = SIDES.map((name, i) => ({ name, items: recording.frames,
      point: (f) => [f.step, f.metrics[i].cross_entropy] }));
    const now = recording.frames[index]?.metrics;
    draw($("race-training"), { lines, x: "step", y: "nats/token", least: LEAST_SPAN, span: [0, recording.steps || 1],
      cursor: isLive ? undefined : step,
      describe: now ? `Training cross entropy in nats per token at step ${step}: left ${loss(now[0].cross_entropy)}, ` +
        `right ${loss(now[1].cross_entropy)}` : "Training cross entropy: nothing measured yet" });
  };

  table = () => {
    const shown = this.#evaluations();
    const first = shown[0];
    const now = shown.at(-1);
    const hasWrong = this.#timeline.isWrong;
    for (const cell of document.querySelectorAll("#race-table thead .wrong")) cell.hidden = !hasWrong;
    const row = (name, { target, general, wrong }, before) => el("tr", {}, el("th", { scope: "row", text: name }),
      ...[target, general].flatMap((e, i) => {
        const was = before && [before.target, before.general][i];
        const changed = was && e.perplexity < BEYOND ? change(e.perplexity, was.perplexity) : "";
        return [loss(e.loss), perplexity(e), changed].map((text) => el("td", { text }));
      }), ...(hasWrong ? [el("td", { text: loss(wrong.loss) })] : []));
    const rows = [];
    if (first) {
      const start = first.step === 0;
      if (start) rows.push(row("before training", first.learners[0]));
      SIDES.forEach((side, i) => rows.push(row(`${side} (${this.#names[i]}), step ${now.step}`, now.learners[i],
        start && now !== first ? first.learners[i] : null)));
    }
    document.querySelector("#race-table tbody").replaceChildren(...rows);
  };

  get views() { return [this.key, this.plane, this.target, this.general, this.training, this.table]; }
}
