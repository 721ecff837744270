// What the page has recorded of a run, in bounded memory, and the slider that goes back through it.

import { $, SIDES } from "./dom.js";
import { KEPT_TOKENS } from "./landscape.js";

/** Trained tokens whose numbers are kept: ten numbers each, 16 MB. Beyond, every second of the older steps loses
 *  them. */
const MOST_TOKENS = 400_000;

export class Recording {
  /** One entry a step, for good: `{step, metrics: [left, right]}`; `full` is the frame, as long as it is kept. */
  frames = [];
  evaluations = [];
  samples = [];
  /** The learners' objectives, each entry from the step after `after` on: what was recorded keeps the name that it had. */
  #methods = [];
  #tokens = 0;
  /** Seconds that the run had taken when it was saved last. */
  #saved = null;

  /** `steps` is how many there will be; `first` the step at which the learners were when the recording began. */
  constructor(steps = 0, first = 0) {
    Object.assign(this, { steps, first });
  }

  /** From here on the learners have these objectives. */
  named(names) {
    const after = this.frames.at(-1)?.step ?? this.first;
    if (this.#methods.at(-1)?.after === after) this.#methods.pop();
    this.#methods.push({ after, names });
  }

  /** What a learner's objective was, or were, up to a step. */
  nameAt(side, step) {
    const index = SIDES.indexOf(side);
    let words = "";
    let last;
    for (const { after, names } of this.#methods) {
      if (names[index] === last || (words && after >= step)) continue;
      last = names[index];
      words += words ? `, then ${last} from step ${after + 1}` : last;
    }
    return words || side;
  }

  /** All that there is so far is in a file of the visitor's. */
  saved() { this.#saved = this.#seconds(this.frames.at(-1)); }

  /** Seconds of training that are in no file: since it was saved, or since the first step. */
  get unsaved() { return this.#seconds(this.frames.at(-1)) - (this.#saved ?? this.#seconds(this.frames[0])); }

  #seconds(frame) { return Math.max(0, ...frame?.metrics.map(({ seconds }) => seconds) ?? []); }

  add(frame) {
    this.frames.push({ step: frame.step, metrics: frame.learners.map((l) => l.metrics), full: frame });
    this.#tokens += frame.document.length;
    if (this.#tokens > MOST_TOKENS) this.#thin();
  }

  /** The newest steps, which the landscape shows, keep everything. */
  #thin() {
    const full = this.frames.filter((f) => f.full);
    let newest = 0;
    let spared = full.length;
    while (spared > 0 && newest < KEPT_TOKENS) newest += full[--spared].full.document.length;
    for (let k = 0; k < spared; k += 2) {
      this.#tokens -= full[k].full.document.length;
      full[k].full = null;
    }
  }

  /** Steps up to entry `index`, oldest first, that the landscape shows: as many as hold `KEPT_TOKENS`. */
  window(index) {
    const found = [];
    let tokens = 0;
    for (let k = index; k >= 0 && tokens < KEPT_TOKENS; k--) {
      const { full } = this.frames[k];
      if (!full) continue;
      found.push(full);
      tokens += full.document.length;
    }
    return found.reverse();
  }
}

/** The slider. `index` is the entry of the recording that is shown; live means the newest, whatever comes. */
export class Timeline {
  #slider = $("timeline");
  #step = $("timeline-step");
  #live = $("live");
  #onMove;
  recording = new Recording();
  isLive = true;

  constructor(onMove) {
    this.#onMove = onMove;
    this.#slider.addEventListener("input", () => this.#move(Number(this.#slider.value)));
    this.#live.addEventListener("click", () => this.#move(this.recording.frames.length - 1));
  }

  get index() {
    return this.isLive ? this.recording.frames.length - 1 : Number(this.#slider.value);
  }

  /** The step that is shown, or the one where the recording starts. */
  get step() {
    return this.recording.frames[this.index]?.step ?? this.recording.first;
  }

  /** What was measured up to the step that is shown. */
  get evaluations() {
    const { evaluations } = this.recording;
    return this.isLive ? evaluations : evaluations.filter(({ step }) => step <= this.step);
  }

  /** Labels are wrong: what is learned are they, and the target is the truth, which can only be kept. */
  get isWrong() { return this.evaluations[0]?.learners.every(({ wrong }) => wrong) ?? false; }

  #move(index) {
    this.isLive = index >= this.recording.frames.length - 1;
    this.#slider.value = index;
    this.refresh();
    this.#onMove();
  }

  reset(recording) {
    this.recording = recording;
    this.isLive = true;
    this.refresh();
  }

  refresh() {
    const count = this.recording.frames.length;
    this.#slider.disabled = count === 0;
    this.#slider.max = Math.max(0, count - 1);
    if (this.isLive) this.#slider.value = this.#slider.max;
    this.#live.disabled = this.isLive;
    const words = count === 0 ? "no step yet" : `step ${this.step}${this.isLive ? ", live" : ""}`;
    this.#step.textContent = words;
    this.#slider.setAttribute("aria-valuetext", words);
  }
}
