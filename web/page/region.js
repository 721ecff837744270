// A region of the landscape, chosen by dragging, by a button or by numbers: shown on both maps, and its tokens listed
// with the text around them.

import { $, chosen, el, nextFrame, onChosen, SIDES } from "./dom.js";
import { number, percent, visible } from "./format.js";
import { CONFLICT, tokensIn } from "./landscape.js";

const TOKENS_LISTED = 24;

export class Region {
  #panels;
  #documents;
  #onError;
  #onOpen;
  #region = null;
  #turn = 0;

  constructor({ panels, documents, onError, onWarning, onOpen }) {
    this.#panels = panels;
    this.#documents = documents;
    this.#onError = onError;
    this.#onOpen = onOpen;
    onChosen("brush-side", () => this.list());
    $("brush-clear").addEventListener("click", () => this.choose(null));
    $("region-conflict").dataset.region = [...CONFLICT.p, ...CONFLICT.h];
    $("region-p1").value = CONFLICT.p[1];
    $("region-h1").value = CONFLICT.h[1];
    for (const button of document.querySelectorAll("[data-region]")) {
      const [p0, p1, h0, h1] = button.dataset.region.split(",").map(Number);
      button.addEventListener("click", () => this.choose({ p: [p0, p1], h: [h0, h1] }));
    }
    $("region-apply").addEventListener("click", () => {
      const [p0, p1, h0, h1] = ["p0", "p1", "h0", "h1"].map((name) => $(`region-${name}`).valueAsNumber);
      if (p0 < p1 && h0 < h1) this.choose({ p: [p0, p1], h: [h0, h1] });
      else onWarning("The region is empty: each \"from\" has to be below its \"to\".");
    });
  }

  /** `index` is the learner on whose map it was drawn; null takes the region away. */
  choose(region, index) {
    this.#region = region;
    for (const { landscape } of this.#panels) landscape.region = region;
    $("brush-clear").disabled = region === null;
    $("brush-result").hidden = region === null;
    if (index !== undefined) document.querySelector(`input[name="brush-side"][value="${SIDES[index]}"]`).checked = true;
    this.list();
  }

  /** Lists the newest tokens in the region. */
  async list() {
    const region = this.#region;
    if (region === null) return;
    const turn = ++this.#turn;
    const side = chosen("brush-side");
    const index = SIDES.indexOf(side);
    const { frames } = this.#panels[index].landscape;
    const shown = frames.reduce((sum, frame) => sum + frame.document.length, 0);
    const { tokens, total } = tokensIn(frames, index, region, TOKENS_LISTED);
    const rows = [];
    try {
      for (const token of tokens) rows.push(await this.#row(token, side));
    } catch (error) {
      this.#onError("The text of these tokens cannot be shown", error);
      return;
    }
    await nextFrame();
    // Meanwhile another region may have been chosen.
    if (turn !== this.#turn || this.#region !== region) return;
    const [p, h] = [region.p, region.h].map((range) => range.map((v) => number(v, 2)).join(" to "));
    $("brush-count").textContent = `${number(total, 6)} of the ${side} learner's last ${number(shown, 6)} ` +
      `tokens have probability ${p} and entropy ${h}.${total > tokens.length ? ` The newest ${tokens.length}:` : ""}`;
    // A list under the visitor's hand stays as it is.
    if (!$("brush-list").contains(document.activeElement)) $("brush-list").replaceChildren(...rows);
  }

  /** A token's words for the map: what stands before it, and itself. */
  async words({ step, document: index, position, p, entropy, gate }) {
    const { tokens } = await this.#documents.get(index);
    const before = tokens.slice(Math.max(0, position - 6), position).map((t) => t.text).join("").replaceAll("\n", "↵");
    return [before, el("mark", { text: visible(tokens[position].text) }),
      el("small", { text: `step ${step}: probability ${percent(p)}, entropy ${number(entropy, 2)}, gate ${number(gate, 2)}` })];
  }

  async #row({ step, document: index, position, p, entropy, gate }, side) {
    const { tokens } = await this.#documents.get(index);
    const words = (from, to) => (from > 0 && from < position ? "…" : "") +
      tokens.slice(Math.max(0, from), to).map((t) => t.text).join("").replaceAll("\n", "↵");
    const numbers = `step ${step}, probability ${percent(p)}, entropy ${number(entropy, 2)}, gate ${number(gate, 2)}`;
    const open = () => {
      this.#onOpen(index, position, side);
      $("text").scrollIntoView({ block: "start" });
    };
    return el("li", {}, el("button", { type: "button", onclick: open }, words(position - 10, position),
      el("mark", { text: visible(tokens[position].text) }), words(position + 1, position + 6),
      el("small", { text: numbers })));
  }
}
