// A training document token by token, and one token in full: what the model expected, and what either learner does
// about it.

import { $, chosen, el, latest, nextFrame, onChosen, settled, SIDES } from "./dom.js";
import { classOf, number, percent, QUANTITIES, visible } from "./format.js";
import schema from "./schema.js";

const MOST_DOCUMENTS = 100;

/** Texts of training documents, asked for once each. */
export class Documents {
  #engine;
  #kept = new Map();

  constructor(engine) { this.#engine = engine; }

  async get(document) {
    if (!this.#kept.has(document)) {
      const asked = this.#engine.document(document);
      this.#kept.set(document, asked);
      asked.catch(() => this.#kept.delete(document));
      if (this.#kept.size > MOST_DOCUMENTS) this.#kept.delete(this.#kept.keys().next().value);
    }
    return this.#kept.get(document);
  }

  clear() { this.#kept.clear(); }
}

export class TextView {
  #documents;
  #painter;
  #names = ["left", "right"];
  #batch = [];
  #document = null;
  #spans = [];
  #inspected = null;
  /** Token position -> index into the arrays of what was inspected. */
  #rows = new Map();
  #chosen = null;

  #inspect;
  #ask;
  #askSoon;

  constructor(engine, documents, painter, onError) {
    this.#documents = documents;
    this.#painter = painter;
    // Each answer is shown only if it is still what the visitor looks at.
    this.#inspect = latest(async (document, who) => {
      const inspected = await engine.inspect(document, who);
      if (document !== this.#document || who !== chosen("text-who")) return;
      this.#inspected = inspected;
      this.#rows = new Map(inspected.position.map((position, row) => [position, row]));
      painter.ask(this.#paint, this.#showNumbers);
    }, onError);
    this.#ask = latest(async (document, position, who) => {
      const candidates = await engine.candidates(document, position, who);
      const wanted = document === this.#document && position === this.#chosen && who === chosen("text-who");
      if (wanted) this.#showCandidates(candidates);
    }, onError);
    this.#askSoon = settled((...wanted) => this.#ask(...wanted), 120);

    onChosen("text-who", () => { this.refresh(); if (this.#chosen !== null) this.#choose(this.#chosen); });
    onChosen("text-colour", () => this.#paint());
    onChosen("text-rule", () => this.#paint());
    $("text-next").addEventListener("click", () => this.#turn(1));
    $("text-previous").addEventListener("click", () => this.#turn(-1));
    const tokens = $("text-tokens");
    const at = (event) => event.target.closest("[data-position]");
    for (const happens of ["pointerover", "focusin"]) {
      tokens.addEventListener(happens, (event) => { if (at(event)) this.#choose(Number(at(event).dataset.position)); });
    }
    tokens.addEventListener("keydown", (event) => this.#key(event));
  }

  set names(names) {
    this.#names = names.map((name, i) => `${SIDES[i]} (${name})`);
    if (this.#chosen !== null) this.#choose(this.#chosen);
  }

  clear() {
    this.#batch = [];
    this.#document = null;
    this.#inspected = null;
    this.#chosen = null;
    this.#spans = [];
    $("text-tokens").replaceChildren();
    $("text-about").textContent = "Press Play or Step: the documents of the batch appear here.";
    $("token").replaceChildren(el("p", { class: "note", text: "No token is chosen." }));
    this.#buttons();
  }

  /** The documents of the newest batch; the one on show stays until the visitor turns the page. */
  batch(frame) {
    this.#batch = [...new Set(frame.document)];
    this.#buttons();
    if (this.#document === null) this.open(this.#batch[0]);
  }

  #buttons() {
    for (const id of ["text-next", "text-previous"]) $(id).disabled = this.#batch.length === 0;
  }

  #turn(by) {
    const at = this.#batch.indexOf(this.#document);
    const count = this.#batch.length;
    this.open(this.#batch[at < 0 ? 0 : (at + by + count) % count]);
  }

  /** Shows a document and, where one is given, chooses a token of it. */
  async open(document, position = null, who = null) {
    if (who) lookThrough(who);
    const isNew = document !== this.#document;
    this.#document = document;
    if (isNew) {
      this.#chosen = null;
      this.#inspected = null;
      let text;
      try {
        text = await this.#documents.get(document);
      } catch (error) {
        $("text-about").textContent = `Document ${document} cannot be shown: ${error.message}`;
        return;
      }
      if (document !== this.#document) return;
      await nextFrame();
      this.#spans = text.tokens.map(({ text: token, trained }, k) => this.#span(token, trained, k));
      $("text-tokens").replaceChildren(...this.#spans);
      const first = this.#spans.find((span) => span.dataset.position);
      if (first) first.tabIndex = 0;
      const at = this.#batch.indexOf(document);
      const where = at < 0 ? "" : `, ${at + 1} of ${this.#batch.length} in this batch`;
      $("text-about").textContent = `Document ${document}${where}: ` +
        `${text.tokens.length} tokens, ${text.tokens.filter((t) => t.trained).length} trained.`;
    }
    this.refresh();
    if (position !== null) {
      this.#choose(position);
      this.#spans[position]?.scrollIntoView({ block: "nearest" });
    }
  }

  #span(text, trained, k) {
    // A line end is shown as such and also ends the line.
    const shown = text.replaceAll("\n", "↵\n") || "∅";
    // White space alone would be an option without a name.
    const name = text.trim() ? undefined : visible(text);
    const option = { role: "option", "aria-selected": "false", "aria-label": name, text: shown };
    return trained
      ? el("span", { class: "token", tabindex: -1, "data-position": k, ...option })
      : el("span", { class: "token untrained", "aria-disabled": "true", ...option });
  }

  /** Asks anew what the model makes of the document: it changes with every step. */
  refresh() {
    if (this.#document !== null) this.#inspect(this.#document, chosen("text-who"));
  }

  #paint = () => {
    const quantity = chosen("text-colour");
    const rule = Number(chosen("text-rule"));
    $("text-rule-choice").hidden = quantity !== "gate";
    $("text-key").replaceChildren(...scaleKey(quantity));
    const values = this.#inspected && (quantity === "gate" ? this.#inspected.gate[rule] : this.#inspected[quantity]);
    if (!values) return;
    for (const [position, row] of this.#rows) {
      const span = this.#spans[position];
      const chosenToo = position === this.#chosen ? " chosen" : "";
      if (span) span.className = `token level-${classOf(quantity, values[row])}${chosenToo}`;
    }
  };

  #key(event) {
    const order = this.#spans.filter((span) => span.dataset.position);
    const at = order.indexOf(document.activeElement);
    const [on, back, last] = [at + 1, at - 1, order.length - 1];
    const to = { ArrowRight: on, ArrowDown: on, ArrowLeft: back, ArrowUp: back, Home: 0, End: last }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    order[Math.min(Math.max(to, 0), last)].focus();
  }

  #choose(position) {
    const before = this.#spans[this.#chosen];
    if (before) {
      before.classList.remove("chosen");
      before.setAttribute("aria-selected", "false");
      before.tabIndex = -1;
    }
    this.#chosen = position;
    const span = this.#spans[position];
    if (!span) return;
    const first = this.#spans.find((s) => s.tabIndex === 0);
    if (first) first.tabIndex = -1;
    span.classList.add("chosen");
    span.setAttribute("aria-selected", "true");
    span.tabIndex = 0;
    const preceding = this.#spans.slice(Math.max(0, position - 12), position);
    const context = preceding.map((s) => s.textContent).join("").replaceAll("↵\n", "↵");
    $("token").replaceChildren(
      el("p", { class: "context" }, context, el("mark", { text: visible(span.textContent.replaceAll("↵\n", "\n")) })),
      el("dl", { class: "facts", id: "token-numbers" }), el("div", { id: "token-candidates" }));
    this.#showNumbers();
    this.#askSoon(this.#document, position, chosen("text-who"));
  }

  /** What is known at once, from the whole document's numbers. */
  #showNumbers = () => {
    const place = $("token-numbers");
    const row = this.#rows.get(this.#chosen);
    if (!place || row === undefined || !this.#inspected) return;
    const { p, entropy, entropyTopK, gate, gradient } = this.#inspected;
    const fact = (name, value) => [el("dt", { text: name }), el("dd", { text: value })];
    place.replaceChildren(
      ...fact("probability of this token", percent(p[row])),
      ...fact("entropy (unsureness)", `${number(entropy[row], 3)} nats; over the top K ${number(entropyTopK[row], 3)}`),
      ...this.#names.flatMap((name, i) => fact(`gate, ${name}`, number(gate[i][row], 3))),
      ...fact("pull on the model", `left ${number(gradient[0][row], 3)}, right ${number(gradient[1][row], 3)}`));
  };

  #showCandidates({ label, candidates, gate, p, entropy }) {
    const place = $("token-candidates");
    if (!place) return;
    const most = Math.max(...candidates.map((c) => c.p), 1e-9);
    const strongest = Math.max(...candidates.flatMap((c) => c.push.map(Math.abs)), 1e-9);
    const bar = (name, share) => {
      const made = el("span", { class: `bar ${name}` });
      made.style.width = `${Math.max(1, 100 * share)}%`;
      return el("span", { class: "track", "aria-hidden": "true" }, made);
    };
    const cell = (push, side) => el("td", {}, bar(side, Math.abs(push) / strongest),
      `${push >= 0 ? "▲ +" : "▼ -"}${number(Math.abs(push), 2)}`);
    const rows = candidates.map((c) => el("tr", { class: c.id === label.id ? "label" : "" },
      el("th", { scope: "row" }, visible(c.text), c.id === label.id ? el("small", { text: " the text's" }) : ""),
      el("td", {}, bar("base", c.p / most), percent(c.p)), cell(c.push[0], "left"), cell(c.push[1], "right")));
    const heads = ["expected here", "probability", "left moves it", "right moves it"];
    place.replaceChildren(
      el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))),
        el("tbody", {}, ...rows)),
      el("p", { class: "verdict", text: verdict(label, candidates, p, entropy, gate, this.#names) }));
  }
}

function lookThrough(who) {
  document.querySelector(`input[name="text-who"][value="${who}"]`).checked = true;
}

/** In words: how the token lies, and what either learner makes of it. */
function verdict(label, candidates, p, entropy, gate, names) {
  const top = candidates.reduce((a, b) => (b.p > a.p ? b : a));
  const quoted = (token) => `“${visible(token.trim() || token)}”`;
  const text = quoted(label.text);
  const how = top.id === label.id
    ? `The model expects ${text} most of all`
    : `The model expects ${quoted(top.text)}; ${text} is only its number ${label.rank}`;
  const isSure = entropy < schema.conflict.entropy;
  const sure = isSure ? ", and is sure of it" : entropy < 2 ? ", without being sure" : ", and is unsure";
  const conflict = isSure && p < schema.conflict.probability ? " This is a confident conflict." : "";
  const force = (g) => (g < 0.1 ? "leaves it nearly alone" : g < 0.6 ? "pushes gently" : "pushes hard");
  const does = gate.map((g, i) => `${names[i]} ${force(g)}, with weight ${number(g, 2)}`).join("; ");
  return `${how}${sure}.${conflict} Training raises ${text} and lowers the rest: ${does}.`;
}

/** The five classes of a quantity as a key, with their numbers. */
export function scaleKey(quantity) {
  const { bounds, scale, low, high } = QUANTITIES[quantity];
  return [0, 1, 2, 3, 4].map((k) => {
    const text = k === 0 ? `below ${bounds[0]}: ${low}` : k === 4 ? `${bounds[3]} and above: ${high}`
      : `${bounds[k - 1]} to ${bounds[k]}`;
    return el("span", { class: "entry" }, el("i", { class: `cell ${scale}-${k}`, "aria-hidden": "true" }), text);
  });
}
