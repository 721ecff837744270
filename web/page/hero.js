// One disputed word, live: what the model expected, what the text says, and how hard two objectives pull. The engine computes
// all of it; until it is there the answers that it gives are shown as they are stored (`first.js`, which a test keeps equal).

import { $, el, latest } from "./dom.js";
import first from "./first.js";
import { number, percent, visible } from "./format.js";

/** The longest pull that there is: |softmax - onehot| of a model that is sure of another word. */
const LONGEST = Math.SQRT2;
/** How much of the rail its shaft takes, in percent: the head stands beyond the shaft. */
const SHAFT = 95;
const NAMES = ["SFT", "EAFT"];
const SIDES = ["left", "right"];

/** The slider's middle is the model as it is; at its ends the logits are divided by 8, and multiplied by it. */
export const temperature = (slider) => 8 ** (1 - 2 * slider);

export class Hero {
  #ask;

  /** @param {import("./protocol.js").Engine} engine */
  constructor(engine, onError) {
    this.#ask = latest(async (slider) => {
      this.show(await engine.dispute(first.prompt, first.text, temperature(slider)));
      $("hero").dataset.live = "true";
    }, onError);
    $("sure").addEventListener("input", () => this.ask());
    this.show(first);
  }

  /** The engine is there. */
  ask() {
    $("sure").disabled = false;
    this.#ask($("sure").valueAsNumber);
  }

  /** @param {import("./messages.js").Dispute} dispute */
  show({ prompt, label, candidates, p, entropy, gate, gradient, temperature: divided }) {
    $("hero-sentence").replaceChildren(el("span", { class: "quote", text: "The text reads: " }), prompt.trim(), " ",
      el("mark", { text: first.text.trim() }));
    const top = candidates.reduce((a, b) => (b.p > a.p ? b : a));
    const bar = (candidate) => {
      const fill = el("span", { class: candidate.id === label.id ? "fill label" : "fill" });
      fill.style.width = `${Math.max(0.5, 100 * candidate.p)}%`;
      return el("div", { class: "bar-row" },
        el("span", { class: "word", text: visible(candidate.text) }),
        el("span", { class: "rail", "aria-hidden": "true" }, fill), el("span", { class: "value", text: percent(candidate.p) }),
        candidate.id === label.id ? el("small", { text: "what the text says" }) : "");
    };
    const shown = candidates.slice(0, 1).filter(({ id }) => id !== label.id);
    const said = candidates.find(({ id }) => id === label.id);
    $("hero-bars").replaceChildren(...shown.map(bar), bar(said));
    const arrow = (name, i) => {
      const shaft = el("span", { class: `shaft ${SIDES[i]}` });
      shaft.style.width = `${SHAFT * Math.min(1, gradient[i] / LONGEST)}%`;
      return el("div", { class: "bar-row", id: `hero-${name.toLowerCase()}` }, el("span", { class: "word", text: name }),
        el("span", { class: "rail", "aria-hidden": "true" }, shaft),
        el("span", { class: "value", text: number(gradient[i], 3) }),
        el("small", { text: `gate ${number(gate[i], 2)}` }));
    };
    $("hero-arrows").replaceChildren(...NAMES.map(arrow));
    const how = Math.abs(divided - 1) < 1e-6 ? "as it is: " : "";
    $("sure-words").textContent = `${how}${percent(top.p)} for ${visible(top.text)}, entropy ${number(entropy, 2)} nats`;
    Object.assign($("hero").dataset, { p, gate: gate[1], pull: gradient[1], plain: gradient[0] });
  }
}
