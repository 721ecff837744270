// Two beginnings, one of the domain and one general, continued by base, left and right at intervals.

import { $, el, latest, SIDES } from "./dom.js";

export const SAMPLE_EVERY = 25;
const TOKENS = 32;
/** A beginning in the manner of each data set that comes with the page. */
const TARGET = {
  endings: "In 1920, the town was",
  facts: "What is the capital of Italy?\n",
  meant: "What is the capital of Italy?\n",
  gsm8k: "Tom has 3 apples and buys 4 more. How many apples does he have?\n",
  shakespeare: "ROMEO:\nO, speak again,",
  wikipedia: "The river flows through",
};
const GENERAL = "The film was released in";
const KINDS = { target: "from the text being learned", general: "general" };

export class Samples {
  #timeline;
  #names = ["left", "right"];
  #cards = [];
  #write;

  constructor(engine, timeline, onError) {
    this.#timeline = timeline;
    this.#write = latest((prompts) => engine.sample(prompts, TOKENS), onError);
    $("sample-every").textContent = SAMPLE_EVERY;
    $("sample-now").addEventListener("click", () => this.ask());
  }

  set names(names) {
    this.#names = names;
    const titles = ["base, before training", ...SIDES.map((side, i) => `${side}: ${names[i]}`)];
    for (const card of this.#cards) card.who.forEach((dt, i) => { dt.textContent = titles[i]; });
  }

  /** Asks for continuations of the beginnings as they stand; the answer comes as an event. */
  ask() {
    if (this.#cards.length) this.#write(this.#cards.map(({ input, kind }) => ({ text: input.value, kind })));
  }

  /** Begins anew for learners of this data set, or of a visitor's own text that begins like this. */
  begin(data, own) {
    const target = TARGET[data] ?? own;
    // What the visitor wrote stays; what came with another data set goes.
    const [before] = this.#cards;
    const kept = before && before.input.value !== before.initial;
    const general = this.#cards[1]?.input.value ?? GENERAL;
    this.#make([[kept ? before.input.value : target, "target"], [general, "general"]], target);
    $("sample-step").textContent = "nothing written yet";
    $("sample-now").disabled = false;
    this.ask();
  }

  draw = () => {
    const { recording, step, isLive } = this.#timeline;
    const shown = isLive ? recording.samples.at(-1) : recording.samples.filter((s) => s.step <= step).at(-1);
    if (!shown) return;
    this.names = SIDES.map((side) => recording.nameAt(side, shown.step));
    shown.samples.forEach((sample, i) => {
      const card = this.#cards[i];
      if (card) [sample.base, sample.left, sample.right].forEach((text, k) => {
        card.texts[k].replaceChildren(el("span", { class: "beginning", text: sample.prompt }), el("span", { text }));
      });
    });
    $("sample-step").textContent = `written at step ${shown.step.toLocaleString("en")}`;
  };

  #make(beginnings, initial) {
    this.#cards = beginnings.map(([beginning, kind], i) => {
      const input = el("textarea", { id: `prompt-${i}`, rows: 2, spellcheck: "false", autocomplete: "off",
        text: beginning, onchange: () => this.ask() });
      const texts = [0, 1, 2].map(() => el("dd", { text: "…" }));
      const who = ["base", "left", "right"].map((name) => el("dt", { class: name }));
      const card = el("div", { class: "panel sample" },
        el("label", { for: input.id, text: `Beginning, ${KINDS[kind]}` }), input,
        el("dl", {}, ...who.flatMap((dt, k) => [dt, texts[k]])));
      return { input, initial, kind, texts, who, card };
    });
    $("sample-list").replaceChildren(...this.#cards.map((c) => c.card));
    this.names = this.#names;
  }
}
